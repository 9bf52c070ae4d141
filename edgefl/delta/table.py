# SPDX-License-Identifier: Apache-2.0
"""The section table: what every section covers and how long its streams are, in two layouts.

The plain layout has fixed fields. The compact one says the same in about 28 bytes per section instead of 70:
integers are LEB128, what follows from something else is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from edgefl.delta.coders import Stream
from edgefl.delta.grid import OFFSET_UNIT, Grid
from edgefl.errors import DeltaSection, DeltaTruncated

ENTRY = struct.Struct("<BBBBQQIfffI")
STREAM = struct.Struct("<BI")
FLOAT = struct.Struct("<f")
OFFSET = struct.Struct("<b")

LISTED = 16
"""A width that is none: raised levels are listed by their positions."""

WIDTH_CODES = (0, 1, 2, 4, 8, LISTED)
"""Widths by the three bits that stand for them in the compact layout."""

_MODE_BIT, _SAME_BIT = 1 << 6, 1 << 7
_KIND_MASK = 7
_MAX_VARINT = 5
_CODER_BITS = 2


@dataclass(frozen=True)
class Section:
    """One entry of the section table.

    Attributes:
        kind: what the streams mean, see `edgefl.delta.sections`.
        mode: how positions are coded.
        width: bits of the level plane.
        start: first parameter covered.
        length: parameters covered.
        count: values carried.
        grid: how levels become values.
        escapes: levels that did not fit the plane; None where the table leaves it to the plane.
    """

    kind: int
    mode: int
    width: int
    start: int
    length: int
    count: int
    grid: Grid
    escapes: int | None = 0


@dataclass(frozen=True)
class Coded:
    """A section and its coded streams."""

    section: Section
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class Entry:
    """A section as the table has it: coder and length of every stream, and where the next entry begins."""

    section: Section
    streams: tuple[tuple[int, int], ...]
    end: int


def write_plain(coded: Coded) -> bytes:
    """One entry in the plain layout."""
    s, g = coded.section, coded.section.grid
    head = (s.kind, s.mode, s.width, len(coded.streams), s.start, s.length, s.count)
    fixed = ENTRY.pack(*head, g.step, g.c0, g.r, s.escapes or 0)
    return fixed + b"".join(STREAM.pack(stream.coder, len(stream.data)) for stream in coded.streams)


def read_plain(frame: bytes, at: int, limit: int, streams_of: Mapping[int, int]) -> Entry:
    """The entry at a byte offset, none of it beyond `limit`.

    Raises:
        DeltaTruncated: the entry does not fit.
        DeltaSection: its kind is unknown, or has another number of streams.
    """
    _check_room(at, ENTRY.size, limit)
    kind, mode, width, streams, start, length, count, step, c0, r, escapes = ENTRY.unpack_from(frame, at)
    if _streams(kind, streams_of) != streams:
        raise DeltaSection(f"section of kind {kind} with {streams} streams, expected {streams_of[kind]}")
    at += ENTRY.size
    _check_room(at, STREAM.size * streams, limit)
    sizes = tuple(STREAM.unpack_from(frame, at + STREAM.size * i) for i in range(streams))
    section = Section(kind, mode, width, start, length, count, Grid(step, c0, r), escapes)
    return Entry(section, sizes, at + STREAM.size * streams)


def write_compact(coded: Coded, previous_end: int) -> bytes:
    """One entry in the compact layout."""
    s, g = coded.section, coded.section.grid
    same = g.c0 == g.step
    skip = s.start - previous_end
    flags = (_MODE_BIT if s.mode else 0) | (_SAME_BIT if same else 0)
    parts = [bytes([s.kind | WIDTH_CODES.index(s.width) << 3 | flags]), _varint(s.length << 1 | bool(skip))]
    parts += [_varint(skip)] if skip else []
    parts += [_varint(s.count), FLOAT.pack(g.step)]
    parts += [] if same else [FLOAT.pack(g.c0)]
    parts += [OFFSET.pack(round(g.r * OFFSET_UNIT))]
    parts += [_varint(s.escapes or 0)] if s.width == LISTED else []
    parts += [_varint(len(stream.data) << _CODER_BITS | stream.coder) for stream in coded.streams]
    return b"".join(parts)


def read_compact(
    frame: bytes, at: int, limit: int, streams_of: Mapping[int, int], previous_end: int
) -> Entry:
    """The entry at a byte offset, none of it beyond `limit`; raises as `read_plain` does."""
    _check_room(at, 1, limit)
    head = frame[at]
    kind, width = head & _KIND_MASK, head >> 3 & 7
    if width >= len(WIDTH_CODES):
        raise DeltaSection(f"section with width code {width}, known are 0 to {len(WIDTH_CODES) - 1}")
    spread, at = _read_varint(frame, at + 1, limit)
    skip, at = _read_varint(frame, at, limit) if spread & 1 else (0, at)
    count, at = _read_varint(frame, at, limit)
    step, at = _read_float(frame, at, limit)
    c0, at = (step, at) if head & _SAME_BIT else _read_float(frame, at, limit)
    _check_room(at, OFFSET.size, limit)
    grid, at = Grid(step, c0, OFFSET.unpack_from(frame, at)[0] / OFFSET_UNIT), at + OFFSET.size
    escapes = None
    if WIDTH_CODES[width] == LISTED:
        escapes, at = _read_varint(frame, at, limit)
    sizes = []
    for _ in range(_streams(kind, streams_of)):
        size, at = _read_varint(frame, at, limit)
        sizes.append((size & (1 << _CODER_BITS) - 1, size >> _CODER_BITS))
    mode = int(bool(head & _MODE_BIT))
    start, length = previous_end + skip, spread >> 1
    section = Section(kind, mode, WIDTH_CODES[width], start, length, count, grid, escapes)
    return Entry(section, tuple(sizes), at)


def _streams(kind: int, streams_of: Mapping[int, int]) -> int:
    if kind not in streams_of:
        raise DeltaSection(f"section of kind {kind}, known are {', '.join(map(str, streams_of))}")
    return streams_of[kind]


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def _read_varint(frame: bytes, at: int, limit: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT):
        _check_room(at + i, 1, limit)
        value |= (frame[at + i] & 0x7F) << 7 * i
        if frame[at + i] < 0x80:
            return value, at + i + 1
    raise DeltaSection(f"integer at byte {at} of the section table has over {_MAX_VARINT} bytes")


def _read_float(frame: bytes, at: int, limit: int) -> tuple[float, int]:
    _check_room(at, FLOAT.size, limit)
    return FLOAT.unpack_from(frame, at)[0], at + FLOAT.size


def _check_room(at: int, need: int, limit: int) -> None:
    if at + need > limit:
        raise DeltaTruncated(f"section table needs {need} bytes at byte {at}, it must end before {limit}")
