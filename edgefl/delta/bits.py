# SPDX-License-Identifier: Apache-2.0
"""Packing integers into bits, least significant bit first, without a Python loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

_MASKS = (np.uint64(1) << np.arange(33, dtype=np.uint64)) - np.uint64(1)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def packed_size(bits: int) -> int:
    """Bytes that hold a number of bits."""
    return (bits + 7) // 8


def pack_bits(flags: Array) -> bytes:
    """Booleans of shape `(n,)` to `ceil(n / 8)` bytes."""
    return np.packbits(flags, bitorder="little").tobytes()


def unpack_bits(data: bytes, count: int) -> Bytes:
    """The first `count` bits as 0 and 1, shape `(count,)`."""
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count, bitorder="little")


def padding_is_zero(data: bytes, bits: int) -> bool:
    """Whether nothing is set after the first `bits` bits of data that is exactly long enough for them."""
    return bits % 8 == 0 or data[-1] >> (bits % 8) == 0


def pack_plane(levels: Array, width: int) -> bytes:
    """Levels below `2**width`, `8 / width` of them per byte; width is 1, 2 or 4."""
    if width == 1:
        return pack_bits(levels)
    per_byte = 8 // width
    padded = np.zeros(-(-len(levels) // per_byte) * per_byte, np.uint8)
    padded[: len(levels)] = levels
    rows = padded.reshape(-1, per_byte)
    packed = rows[:, 0].copy()
    for column in range(1, per_byte):
        packed |= rows[:, column] << np.uint8(column * width)
    return packed.tobytes()


def unpack_plane(data: bytes, width: int, count: int) -> Bytes:
    """The inverse of `pack_plane`, shape `(count,)`."""
    if width == 1:
        return unpack_bits(data, count)
    packed = np.frombuffer(data, np.uint8)
    rows = np.empty((len(packed), 8 // width), np.uint8)
    for column in range(8 // width):
        np.right_shift(packed, np.uint8(column * width), out=rows[:, column])
    rows &= np.uint8((1 << width) - 1)
    return rows.reshape(-1)[:count]


class FieldWriter:
    """Concatenates fields of up to 32 bits each, piece by piece."""

    def __init__(self) -> None:
        self._bits = 0
        self._pieces: list[tuple[int, Array]] = []

    def write(self, values: Array, widths: Array) -> None:
        """Append `values[i]` in `widths[i]` bits each."""
        ends = np.cumsum(widths, dtype=np.int32)
        total = int(ends[-1]) if len(ends) else 0
        if not total:
            return
        offsets = ends - widths
        offsets += self._bits & 31
        word = offsets >> 5
        offsets &= 31
        shifted = values.astype(np.uint64)
        shifted <<= offsets.astype(np.uint8)
        first = np.concatenate(([0], np.flatnonzero(word[1:] != word[:-1]) + 1))
        # Fields that begin in one 32-bit word never overlap, so their sum is their union.
        unions = np.add.reduceat(shifted, first)
        at = word[first]
        words = np.zeros(int(at[-1]) + 2, np.uint64)
        words[at] += unions & _LOW
        words[at + 1] += unions >> _WORD
        self._pieces.append((self._bits >> 5, words.astype("<u4")))
        self._bits += total

    def finish(self) -> bytes:
        """All fields, the last byte filled up with zeros."""
        words = np.zeros((self._bits >> 5) + 2, "<u4")
        for start, piece in self._pieces:
            words[start : start + len(piece)] |= piece[: len(words) - start]
        return words.tobytes()[: packed_size(self._bits)]


class FieldReader:
    """Gives fields back in the order they were written; the data must be long enough for them."""

    def __init__(self, data: bytes) -> None:
        padded = np.zeros(len(data) // 4 + 3, "<u4")
        padded.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
        self._windows = padded[1:].astype(np.uint64)
        self._windows <<= _WORD
        self._windows |= padded[:-1]
        self._bits = 0

    def read(self, widths: Ints) -> npt.NDArray[np.uint64]:
        """The next `len(widths)` integers."""
        ends = np.cumsum(widths, dtype=np.int64)
        offsets = ends - widths
        offsets += self._bits & 31
        # Places are of the machine's own width, 32 bits on small ones.
        fields = self._windows[self._bits >> 5 :].take((offsets >> 5).astype(np.intp, copy=False))
        offsets &= 31
        fields >>= offsets.view(np.uint64)
        fields &= _MASKS.take(widths.astype(np.intp, copy=False))
        self._bits += int(ends[-1])
        return fields
