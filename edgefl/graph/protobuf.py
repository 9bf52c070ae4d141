# SPDX-License-Identifier: Apache-2.0
"""The protobuf wire format, as much of it as ONNX needs: reading without trust and writing without choice.

Follows https://protobuf.dev/programming-guides/encoding. Unknown fields are skipped; groups, overlong
varints, lengths past the end and singular fields given twice are refused with GraphError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import GraphError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10  # bytes of a 64-bit varint

Value = int | memoryview


class Message:
    """The fields of one message, by number; accessors check the wire type and say where they failed."""

    def __init__(self, data: bytes | memoryview, where: str) -> None:
        self.where = where
        self._fields: dict[int, list[Value]] = {}
        for number, value in fields(memoryview(data).cast("B"), where):
            self._fields.setdefault(number, []).append(value)

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def count(self, number: int) -> int:
        """How often a field occurs."""
        return len(self._fields.get(number, ()))

    def integer(self, number: int, default: int = 0) -> int:
        """A singular signed integer or enum."""
        value = self._single(number)
        if value is None:
            return default
        if not isinstance(value, int):
            raise GraphError(f"{self.where}: field {number} is not an integer")
        return _signed(value)

    def integers(self, number: int) -> npt.NDArray[np.int64]:
        """A repeated signed integer, packed or not."""
        values = self._fields.get(number, [])
        loose = np.array([value for value in values if isinstance(value, int)], np.uint64).view(np.int64)
        packed = [varints(value, self.where) for value in values if not isinstance(value, int)]
        if packed and loose.size:
            raise GraphError(f"{self.where}: field {number} is given both packed and not")
        return np.concatenate([loose, *packed])

    def bytes(self, number: int) -> memoryview:
        """A singular bytes field, empty when absent."""
        value = self._single(number)
        if value is None:
            return memoryview(b"")
        return self._bytes(number, value)

    def text(self, number: int) -> str:
        """A singular string field, empty when absent."""
        return _decode(self.bytes(number), self.where)

    def texts(self, number: int) -> list[str]:
        """A repeated string field."""
        return [_decode(chunk, self.where) for chunk in self.chunks(number)]

    def chunks(self, number: int) -> list[memoryview]:
        """A repeated bytes, string or message field, undecoded."""
        return [self._bytes(number, value) for value in self._fields.get(number, ())]

    def message(self, number: int) -> Message:
        """A singular message field, empty when absent."""
        return Message(self.bytes(number), self.where)

    def messages(self, number: int, what: str) -> Iterator[Message]:
        """A repeated message field; `what` names each for error messages."""
        for i, chunk in enumerate(self.chunks(number)):
            yield Message(chunk, f"{self.where}, {what} {i}")

    def floats(self, number: int, dtype: str = "<f4") -> npt.NDArray[Any]:
        """A repeated (or singular) float `<f4` or double `<f8` field, packed or not."""
        parts = [self._bytes(number, value) for value in self._fields.get(number, ())]
        data = b"".join(parts)
        if len(data) % np.dtype(dtype).itemsize:
            raise GraphError(f"{self.where}: field {number} ends within a number")
        return np.frombuffer(data, dtype).astype(dtype[1:])

    def _single(self, number: int) -> Value | None:
        values = self._fields.get(number, [])
        if len(values) > 1:
            raise GraphError(
                f"{self.where}: field {number} is given {len(values)} times, at most once is allowed"
            )
        return values[0] if values else None

    def _bytes(self, number: int, value: Value) -> memoryview:
        if isinstance(value, int):
            raise GraphError(f"{self.where}: field {number} is not of a length-delimited or fixed type")
        return value


def varints(data: memoryview, where: str) -> npt.NDArray[np.int64]:
    """The signed integers of a packed field."""
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if octets.size and (not ends.size or ends[-1] != octets.size - 1):
        raise GraphError(f"{where}: a packed field ends within a number")
    starts = np.concatenate([np.zeros(min(1, ends.size), ends.dtype), ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.size and lengths.max() > _MAX_VARINT:
        raise GraphError(f"{where}: a varint is longer than {_MAX_VARINT} bytes")
    values = np.zeros(ends.size, np.uint64)
    for k in range(int(lengths.max(initial=0))):
        rows = lengths > k
        values[rows] |= (octets[starts[rows] + k] & 0x7F).astype(np.uint64) << np.uint64(7 * k)
    return values.view(np.int64)


def fields(data: memoryview, where: str) -> Iterator[tuple[int, Value]]:
    """Number and undecoded value of each field of one message, in the order of the bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at, where)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise GraphError(f"{where}: field number {number} at byte {at} is out of range")
        if wire == _VARINT:
            value, at = _varint(data, at, where)
            yield number, value
            continue
        size, at = _length(data, at, wire, where)
        if size > len(data) - at:
            raise GraphError(f"{where}: field {number} claims {size} bytes, {len(data) - at} are left")
        yield number, data[at : at + size]
        at += size


def _length(data: memoryview, at: int, wire: int, where: str) -> tuple[int, int]:
    if wire == _BYTES:
        return _varint(data, at, where)
    if wire in (_FIXED32, _FIXED64):
        return (4 if wire == _FIXED32 else 8), at
    raise GraphError(f"{where}: wire type {wire} at byte {at} is not one of 0, 1, 2, 5")


def _varint(data: memoryview, at: int, where: str) -> tuple[int, int]:
    value = 0
    for k in range(_MAX_VARINT):
        if at + k >= len(data):
            raise GraphError(f"{where}: the data ends within a number")
        octet = data[at + k]
        value |= (octet & 0x7F) << (7 * k)
        if octet < 0x80:
            return value & (1 << 64) - 1, at + k + 1
    raise GraphError(f"{where}: a varint at byte {at} is longer than {_MAX_VARINT} bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _decode(data: memoryview, where: str) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as exc:
        raise GraphError(f"{where}: a string is not UTF-8") from exc


# -- writing


def varint(value: int) -> bytes:
    """A 64-bit two's complement varint."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def put_integer(number: int, value: int) -> bytes:
    return varint(number << 3 | _VARINT) + varint(value)


def put_float(number: int, value: float) -> bytes:
    return varint(number << 3 | _FIXED32) + struct.pack("<f", value)


def put_bytes(number: int, value: bytes | str) -> bytes:
    """A string, bytes or message field."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def put_integers(number: int, values: Iterable[int]) -> bytes:
    """A repeated integer, one field per element, as ONNX (proto2) declares it."""
    return b"".join(put_integer(number, value) for value in values)


def put_floats(number: int, values: Iterable[float]) -> bytes:
    return b"".join(put_float(number, value) for value in values)
