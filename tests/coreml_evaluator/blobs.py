# SPDX-License-Identifier: Apache-2.0
"""Reads weight files: MIL blob storage, version 2.

A file begins with a header of 64 bytes (count uint32, version uint32, reserved). Each blob has a record of 64
bytes at an offset that the program names: sentinel 0xDEADBEEF (uint32), type (uint32), size in bytes, offset
of the data, padding in bits (uint64 each), reserved. All little-endian; data starts at a multiple of 64.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.coreml_evaluator.errors import MalformedFile, TooLarge, Unsupported

Array = npt.NDArray[Any]

MAX_FILE = 1 << 31
_ALIGNMENT = 64
_SENTINEL = 0xDEADBEEF
_WHOLE = {1: "<f2", 2: "<f4", 3: "u1", 4: "i1", 6: "<i2", 7: "<u2", 14: "<i4", 15: "<u4"}
_BITS = {8: (4, True), 9: (1, False), 10: (2, False), 11: (4, False), 12: (3, False), 13: (6, False)}
TYPES = {
    "FLOAT16": 1, "FLOAT32": 2, "UINT8": 3, "INT8": 4, "INT16": 6, "UINT16": 7, "INT4": 8, "UINT1": 9,
    "UINT2": 10, "UINT4": 11, "UINT3": 12, "UINT6": 13, "INT32": 14, "UINT32": 15,
}  # fmt: skip
"""Type numbers of the file for the program's names of the types."""


class Blobs:
    """A weight file, held as bytes."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size > MAX_FILE:
            raise TooLarge(f"{path.name}: {path.stat().st_size} bytes, allowed {MAX_FILE}")
        self._data, self._name = path.read_bytes(), path.name
        if len(self._data) < _ALIGNMENT:
            raise MalformedFile(f"{self._name}: {len(self._data)} bytes, a header has {_ALIGNMENT}")
        self.count, version = struct.unpack_from("<II", self._data)
        if version != 2:
            raise MalformedFile(f"{self._name}: blob storage version {version}, known is 2")

    def read(self, offset: int, dtype: str, count: int) -> Array:
        """`count` values of a type, from the record at `offset`. Types below 8 bits come as int8 or uint8."""
        kind, size, start, padding = self._record(offset)
        if TYPES.get(dtype) != kind:
            raise MalformedFile(f"{self._name} at {offset}: holds type {kind}, the program says {dtype}")
        end = start + size
        if start % _ALIGNMENT or end > len(self._data):
            raise MalformedFile(f"{self._name} at {offset}: data {start} to {end} of {len(self._data)} bytes")
        data = np.frombuffer(self._data, np.uint8, size, start)
        if kind in _WHOLE:
            values: Array = (
                data.view(_WHOLE[kind]) if size % np.dtype(_WHOLE[kind]).itemsize == 0 else data[:0]
            )
        else:
            bits, signed = _BITS[kind]
            if size * 8 != count * bits + padding:
                raise MalformedFile(
                    f"{self._name} at {offset}: {size} bytes for {count} values of {bits} bits"
                )
            values = unpack(data, bits, count, signed)
        if values.size != count:
            raise MalformedFile(f"{self._name} at {offset}: {size} bytes, not {count} values of {dtype}")
        return values

    def _record(self, offset: int) -> tuple[int, int, int, int]:
        if offset % _ALIGNMENT or offset + _ALIGNMENT > len(self._data):
            raise MalformedFile(f"{self._name}: no record can be at {offset} of {len(self._data)} bytes")
        sentinel, kind, size, start, padding = struct.unpack_from("<IIQQQ", self._data, offset)
        if sentinel != _SENTINEL:
            raise MalformedFile(f"{self._name} at {offset}: sentinel {sentinel:#x}, expected {_SENTINEL:#x}")
        if kind not in _WHOLE and kind not in _BITS:
            raise Unsupported(f"{self._name} at {offset}: data type {kind}")
        return kind, size, start, padding


def unpack(data: Array, bits: int, count: int, signed: bool = False) -> Array:
    """Values of a few bits each, packed from the least significant bit of each byte on."""
    if data.size * 8 < count * bits:
        raise MalformedFile(f"{data.size} bytes hold fewer than {count} values of {bits} bits")
    flags = np.unpackbits(data.view(np.uint8), bitorder="little")[: count * bits].reshape(count, bits)
    values = np.packbits(flags, axis=1, bitorder="little").reshape(count)
    if not signed:
        return values
    top = 1 << (bits - 1)
    return ((values.astype(np.int16) ^ top) - top).astype(np.int8)
