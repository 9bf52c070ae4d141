# SPDX-License-Identifier: Apache-2.0
"""Section kind 1: a few nonzeros of many parameters.

Streams: gap tokens (or a bitmap), extra bits of the gaps, signs, level plane, escape tokens, extra bits of
the escapes. Levels that do not fit the plane are all ones there, and what is over goes to the escapes. Where
nearly all levels are 0 the others are listed instead: the escapes are the gaps between them, then each level
less 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.delta import bits, tokens
from edgefl.delta.bits import Array, Bytes, Ints
from edgefl.delta.coders import STORED, Stream, entropy_bytes, smallest
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


@dataclass(frozen=True)
class _Written:
    """Positions or levels in one of the ways there are.

    Attributes:
        mode: index mode, or plane width.
        streams: to be shrunk.
        extra: bits that cannot be.
        escapes: how many.
    """

    mode: int
    streams: tuple[bytes, ...]
    extra: bytes = b""
    escapes: int = 0


@dataclass(frozen=True)
class _Shrunk:
    """The same, shrunk; the extra bits are its last stream."""

    mode: int
    escapes: int
    streams: tuple[Stream, ...]


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

    places = _smallest(_positions_written(indices, length), coders, thorough)
    values = _smallest(_levels_written(levels), coders, thorough)
    section = Section(KIND, places.mode, values.mode, start, length, len(indices), grid, values.escapes)
    signs = smallest(bits.pack_bits(negative), coders, thorough)
    return Coded(section, (*places.streams, signs, *values.streams))


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


def _smallest(ways: Sequence[_Written], coders: Collection[str], thorough: bool) -> _Shrunk:
    """What comes out smallest. Where searching is thorough, and slow, entropies say which that will be."""
    if thorough:
        ways = [min(ways, key=_entropy)]
    return min((_shrunk(way, coders, thorough) for way in ways), key=_length)


def _entropy(way: _Written) -> float:
    return sum(min(len(data), entropy_bytes(data)) for data in way.streams) + len(way.extra)


def _shrunk(way: _Written, coders: Collection[str], thorough: bool) -> _Shrunk:
    streams = (smallest(data, coders, thorough) if data else _EMPTY for data in way.streams)
    return _Shrunk(way.mode, way.escapes, (*streams, Stream(STORED, way.extra)))


def _length(shrunk: _Shrunk) -> int:
    return sum(len(stream.data) for stream in shrunk.streams)


def _positions_written(indices: Ints, length: int) -> list[_Written]:
    codes, extra = tokens.split(_gaps(indices))
    by_gaps = _Written(GAPS, (codes.tobytes(),), extra)
    if len(indices) * _BITMAP_MAY_PAY < length:
        return [by_gaps]
    flags = np.zeros(length, np.bool_)
    flags[indices] = True
    return [by_gaps, _Written(BITMAP, (bits.pack_bits(flags),))]


def _gaps(indices: Ints) -> Array:
    """Parameters skipped before every index."""
    gaps = indices.astype(np.int32)
    gaps[1:] -= gaps[:-1].copy()
    gaps[1:] -= 1
    return gaps


def _levels_written(levels: Array) -> list[_Written]:
    """In every plane width that may come out smallest."""
    top = int(levels.max())
    if top == 0:
        return [_Written(0, (b"", b""))]
    raised = np.flatnonzero(levels)
    if len(raised) * _LISTING_PAYS < len(levels):
        return [_listed(levels, raised)]
    return [_plane(levels, width) for width in PLANE_WIDTHS if top > width >> 1]


def _listed(levels: Array, raised: Ints) -> _Written:
    codes, extra = tokens.split(np.concatenate((_gaps(raised), levels[raised] - 1)))
    return _Written(LISTED, (b"", codes.tobytes()), extra, len(raised))


def _plane(levels: Array, width: int) -> _Written:
    full = (1 << width) - 1
    capped = np.minimum(levels, full).astype(np.uint8)
    codes, extra = tokens.split(levels[capped == full] - full)
    return _Written(width, (bits.pack_plane(capped, width), codes.tobytes()), extra, len(codes))


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
