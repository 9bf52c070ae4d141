# SPDX-License-Identifier: Apache-2.0
"""Section kind 1: a few nonzeros of many parameters.

Streams: gap tokens (or a bitmap), extra bits of the gaps, signs, level plane, escape tokens, extra bits of
the escapes. Levels that do not fit the plane are all ones there, and what is over goes to the escapes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from edgefl.delta import bits, tokens
from edgefl.delta.bits import Array, Bytes, Ints
from edgefl.delta.coders import Stream, smallest
from edgefl.delta.frame import Coded, Section
from edgefl.delta.grid import Grid, signed
from edgefl.errors import DeltaIndex, DeltaSection
from edgefl.parameters import Vector

KIND = 1
STREAMS = 6
STREAM_NAMES = ("gaps", "gap bits", "signs", "levels", "escapes", "escape bits")
GAPS, BITMAP = 0, 1
WIDTHS = (0, 1, 2, 4)
"""Plane widths; 0 means that every value is plus or minus `c0`."""

SPARSEST_BITMAP = 64
"""A bitmap over more than 64 parameters per nonzero is refused: it would be long and cannot pay."""

_BITMAP_MAY_PAY = 10

Read = Callable[[int, int], bytes]
Shrink = Callable[[bytes], Stream]


def encode(
    start: int,
    length: int,
    indices: Ints,
    negative: Array,
    levels: Ints,
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
    width, plane, escaped = _best_plane(levels)
    escapes, extra = tokens.split(escaped)
    section = Section(KIND, mode, width, start, length, len(indices), grid, len(escapes))
    values = (bits.pack_bits(negative), plane, escapes.tobytes())
    return Coded(section, (*positions, *map(shrink, values), Stream(0, extra)))


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
    gaps = np.diff(indices, prepend=-1)
    gaps -= 1
    codes, extra = tokens.split(gaps)
    by_gaps = (shrink(codes.tobytes()), Stream(0, extra))
    if len(indices) * _BITMAP_MAY_PAY < length:
        return GAPS, by_gaps
    flags = np.zeros(length, np.bool_)
    flags[indices] = True
    by_bitmap = (shrink(bits.pack_bits(flags)), Stream(0, b""))
    if len(by_bitmap[0].data) < len(by_gaps[0].data) + len(extra):
        return BITMAP, by_bitmap
    return GAPS, by_gaps


def _best_plane(levels: Ints) -> tuple[int, bytes, Ints]:
    """Width, packed plane and what goes over it, for the width that an entropy coder would shrink most."""
    top = int(levels.max())
    if top == 0:
        return 0, b"", levels[:0]
    options = [_plane(levels, width) for width in WIDTHS[1:] if width == 1 or top >= (1 << width // 2) - 1]
    return min(options, key=_cost)


def _plane(levels: Ints, width: int) -> tuple[int, bytes, Ints]:
    full = (1 << width) - 1
    capped = np.minimum(levels, full).astype(np.uint8)
    return width, bits.pack_plane(capped, width), levels[capped == full] - full


def _cost(option: tuple[int, bytes, Ints]) -> float:
    _, plane, escaped = option
    codes, extra = tokens.split(escaped)
    return _coded_bytes(np.frombuffer(plane, np.uint8)) + _coded_bytes(codes) + len(extra)


def _coded_bytes(symbols: Bytes) -> float:
    """What a Huffman coder makes of bytes, about: its shortest code has one bit."""
    return max(entropy_bytes(symbols), len(symbols) / 8)


def entropy_bytes(symbols: Bytes) -> float:
    """Order-0 entropy of bytes, in bytes."""
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / max(len(symbols), 1)
    return float(-(shares @ np.log2(shares))) * len(symbols) / 8 if len(shares) else 0.0


def _from_gaps(section: Section, read: Read) -> Ints:
    codes = np.frombuffer(read(0, section.count), np.uint8)
    gaps = tokens.join(codes, read(1, tokens.extra_size(codes)))
    if gaps.max() >= section.length:
        raise DeltaIndex(f"gap of {gaps.max()} in a section of {section.length} parameters")
    gaps += 1
    indices = np.cumsum(gaps)
    indices -= 1
    if indices[-1] >= section.length:
        raise DeltaIndex(f"position {indices[-1]} in a section of {section.length} parameters")
    return indices


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
    width, count = section.width, section.count
    data = read(3, bits.packed_size(width * count))
    escapes = np.frombuffer(read(4, section.escapes), np.uint8)
    over = tokens.join(escapes, read(5, tokens.extra_size(escapes)))
    if width == 0:
        return np.full(count, section.grid.c0, np.float32)
    if not bits.padding_is_zero(data, width * count):
        raise DeltaIndex("the bits after the last level are not zero")
    full = (1 << width) - 1
    plane = bits.unpack_plane(data, width, count)
    magnitudes = section.grid.magnitudes(np.arange(full + 1))[plane]
    at = np.flatnonzero(plane == full)
    if len(at) != section.escapes:
        raise DeltaIndex(f"plane has {len(at)} escapes, the section {section.escapes}")
    magnitudes[at] = section.grid.magnitudes(over + full)
    return magnitudes
