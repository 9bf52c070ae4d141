# SPDX-License-Identifier: Apache-2.0
"""Section kind 1: a few nonzeros of many parameters.

Streams: gap tokens (or a bitmap), extra bits of the gaps, signs, level plane, escape tokens, extra bits of
the escapes. Levels that do not fit the plane are all ones there, and what is over goes to the escapes. Where
nearly all levels are 0 the others are listed instead: the escapes are the gaps between them, then each level
less 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from edgefl.delta import bits, tokens
from edgefl.delta.bits import Array, Bytes, Ints
from edgefl.delta.coders import STORED, Stream, smallest
from edgefl.delta.grid import Grid, signed
from edgefl.delta.table import LISTED, Coded, Section
from edgefl.errors import DeltaIndex, DeltaSection
from edgefl.parameters import Vector

KIND = 1
STREAMS = 6
STREAM_NAMES = ("gaps", "gap bits", "signs", "levels", "escapes", "escape bits")
GAPS, BITMAP = 0, 1
PLANE_WIDTHS = (1, 2, 4)
WIDTHS = (0, *PLANE_WIDTHS, LISTED)
"""Plane widths; 0 means that every value is plus or minus `c0`, `LISTED` that the few others are listed."""

SPARSEST_BITMAP = 64
"""A bitmap over more than 64 parameters per nonzero is refused: it would be long and cannot pay."""

_BITMAP_MAY_PAY = 10
_LISTING_PAYS = 20

_EMPTY = Stream(STORED, b"")

Read = Callable[[int, int], bytes]
Shrink = Callable[[bytes], Stream]


def encode(
    start: int,
    length: int,
    indices: Ints,
    negative: Array,
    levels: Array,
    grid: Grid,
    *,
    coders: Collection[str],
    thorough: bool = False,
) -> Coded:
    """A coded section.

    Args:
        start, length: the range of parameters covered.
        indices: ascending positions inside the range, shape `(k,)`, k at least 1.
        negative: signs as booleans, shape `(k,)`.
        levels: shape `(k,)`.
    """

    def shrink(data: bytes) -> Stream:
        return smallest(data, coders, thorough)

    mode, positions = _encode_positions(indices, length, shrink)
    width, escapes, values = _encode_levels(levels, shrink)
    section = Section(KIND, mode, width, start, length, len(indices), grid, escapes)
    return Coded(section, (*positions, shrink(bits.pack_bits(negative)), *values))


def decode(section: Section, read: Read) -> tuple[Ints, Vector]:
    """Ascending positions in the whole vector, and values.

    Args:
        read: gives stream i as exactly n bytes, or raises.

    Raises:
        DeltaError: the section's fields or streams do not hold together.
    """
    if section.mode not in (GAPS, BITMAP) or section.width not in WIDTHS:
        raise DeltaSection(
            f"sparse section with index mode {section.mode} (allowed 0, 1) and plane width {section.width} "
            f"(allowed {', '.join(map(str, WIDTHS))})"
        )
    if section.width == 0 and section.escapes:
        raise DeltaSection(f"sparse section without a plane has {section.escapes} escapes")
    indices = (_from_bitmap if section.mode == BITMAP else _from_gaps)(section, read)
    indices += section.start
    return indices, signed(_magnitudes(section, read), _signs(section, read))


def _encode_positions(indices: Ints, length: int, shrink: Shrink) -> tuple[int, tuple[Stream, Stream]]:
    codes, extra = tokens.split(_gaps(indices))
    by_gaps = (shrink(codes.tobytes()), Stream(STORED, extra))
    if len(indices) * _BITMAP_MAY_PAY < length:
        return GAPS, by_gaps
    flags = np.zeros(length, np.bool_)
    flags[indices] = True
    by_bitmap = (shrink(bits.pack_bits(flags)), _EMPTY)
    if len(by_bitmap[0].data) < len(by_gaps[0].data) + len(extra):
        return BITMAP, by_bitmap
    return GAPS, by_gaps


def _gaps(indices: Ints) -> Array:
    """Parameters skipped before every index."""
    gaps = indices.astype(np.int32)
    gaps[1:] -= gaps[:-1].copy()
    gaps[1:] -= 1
    return gaps


def _encode_levels(levels: Array, shrink: Shrink) -> tuple[int, int, tuple[Stream, ...]]:
    """Plane width, number of escapes, and the streams, for the width that comes out smallest."""
    top = int(levels.max())
    if top == 0:
        return 0, 0, (_EMPTY, _EMPTY, _EMPTY)
    raised = np.flatnonzero(levels)
    if len(raised) * _LISTING_PAYS < len(levels):
        return _listed(levels, raised, shrink)
    return min((_plane(levels, width, shrink) for width in PLANE_WIDTHS if top > width >> 1), key=_length)


def _listed(levels: Array, raised: Ints, shrink: Shrink) -> tuple[int, int, tuple[Stream, ...]]:
    codes, extra = tokens.split(np.concatenate((_gaps(raised), levels[raised] - 1)))
    return LISTED, len(raised), (_EMPTY, shrink(codes.tobytes()), Stream(STORED, extra))


def _plane(levels: Array, width: int, shrink: Shrink) -> tuple[int, int, tuple[Stream, ...]]:
    full = (1 << width) - 1
    capped = np.minimum(levels, full).astype(np.uint8)
    codes, extra = tokens.split(levels[capped == full] - full)
    plane = shrink(bits.pack_plane(capped, width))
    return width, len(codes), (plane, shrink(codes.tobytes()), Stream(STORED, extra))


def _length(option: tuple[int, int, tuple[Stream, ...]]) -> int:
    return sum(len(stream.data) for stream in option[2])


def _from_gaps(section: Section, read: Read) -> Ints:
    codes = np.frombuffer(read(0, section.count), np.uint8)
    return _positions(tokens.join(codes, lambda size: read(1, size)), section.length)


def _positions(gaps: Ints, length: int) -> Ints:
    """Gaps to ascending positions below `length`, in place; the sum of checked gaps cannot wrap."""
    top = int(gaps.max(initial=0))
    if top >= length:
        raise DeltaIndex(f"gap of {top} in a range of {length}")
    gaps += 1
    np.cumsum(gaps, out=gaps)
    gaps -= 1
    if len(gaps) and gaps[-1] >= length:
        raise DeltaIndex(f"position {gaps[-1]} in a range of {length}")
    return gaps


def _from_bitmap(section: Section, read: Read) -> Ints:
    if section.length > SPARSEST_BITMAP * section.count:
        raise DeltaSection(f"a bitmap of {section.length} parameters for {section.count} values")
    data = read(0, bits.packed_size(section.length))
    read(1, 0)
    if not bits.padding_is_zero(data, section.length):
        raise DeltaIndex("the bits after the bitmap's last parameter are not zero")
    indices = np.flatnonzero(bits.unpack_bits(data, section.length))
    if len(indices) != section.count:
        raise DeltaIndex(
            f"bitmap marks {len(indices)} parameters, the section carries {section.count} values"
        )
    return indices


def _signs(section: Section, read: Read) -> Bytes:
    data = read(2, bits.packed_size(section.count))
    if not bits.padding_is_zero(data, section.count):
        raise DeltaIndex("the bits after the last sign are not zero")
    return bits.unpack_bits(data, section.count)


def _magnitudes(section: Section, read: Read) -> Vector:
    if section.width == LISTED:
        return _from_list(section, read)
    width, count = section.width, section.count
    data = read(3, bits.packed_size(width * count))
    if not bits.padding_is_zero(data, width * count):
        raise DeltaIndex("the bits after the last level are not zero")
    full = (1 << width) - 1
    plane = bits.unpack_plane(data, width, count) if width else np.empty(0, np.uint8)
    at = np.flatnonzero(plane == full)
    if section.escapes not in (None, len(at)):
        raise DeltaIndex(f"plane has {len(at)} escapes, the section {section.escapes}")
    over = _escapes(len(at), read)
    if width == 0:
        return np.full(count, section.grid.c0, np.float32)
    magnitudes = section.grid.magnitudes(np.arange(full + 1)).take(plane)
    magnitudes[at] = section.grid.magnitudes(over + full)
    return magnitudes


def _from_list(section: Section, read: Read) -> Vector:
    count = section.escapes or 0
    if count > section.count:
        raise DeltaSection(f"{count} raised levels for {section.count} values")
    read(3, 0)
    numbers = _escapes(2 * count, read)
    at = _positions(numbers[:count], section.count)
    magnitudes = np.full(section.count, section.grid.c0, np.float32)
    magnitudes[at] = section.grid.magnitudes(numbers[count:] + 1)
    return magnitudes


def _escapes(count: int, read: Read) -> Ints:
    codes = np.frombuffer(read(4, count), np.uint8)
    return tokens.join(codes, lambda size: read(5, size))
