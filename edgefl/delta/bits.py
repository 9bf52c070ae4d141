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


def pack_fields(values: Array, widths: Array) -> bytes:
    """Concatenate `values[i]` in `widths[i]` bits each; widths are at most 32."""
    ends = _ends(widths)
    total = int(ends[-1]) if len(ends) else 0
    if not total:
        return b""
    offsets = ends - widths
    word = offsets >> 5
    offsets &= 31
    shifted = values.astype(np.uint64)
    shifted <<= offsets.astype(np.uint8)
    first = np.flatnonzero(word[1:] != word[:-1])
    first = np.concatenate(([0], first + 1))
    # Fields that begin in one 32-bit word never overlap, so their sum is their union.
    unions = np.add.reduceat(shifted, first)
    words = np.zeros(total // 32 + 2, np.uint64)
    at = word[first]
    words[at] += unions & _LOW
    words[at + 1] += unions >> _WORD
    return words.astype("<u4").tobytes()[: packed_size(total)]


def unpack_fields(data: bytes, widths: Array) -> npt.NDArray[np.uint64]:
    """The inverse of `pack_fields`: integers of shape `(len(widths),)`."""
    padded = np.zeros(len(data) // 4 + 3, "<u4")
    padded.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    windows = padded[1:].astype(np.uint64)
    windows <<= _WORD
    windows |= padded[:-1]
    offsets = _ends(widths)
    offsets -= widths
    fields = windows.take(offsets >> 5)
    offsets &= 31
    fields >>= offsets.astype(np.uint8)
    fields &= _MASKS.take(widths)
    return fields


def _ends(widths: Array) -> Array:
    # Half the memory while the sum of all widths surely fits: fresh pages cost more than the arithmetic.
    return np.cumsum(widths, dtype=np.int32 if len(widths) < 1 << 26 else np.int64)
