# SPDX-License-Identifier: Apache-2.0
"""Two things written from docs/codec.md alone: a decoder in plain Python, and a forge for broken frames."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from edgefl.delta import Limits

SCHEMA = b"schema-8"
SIZE = 1000


@dataclass(frozen=True)
class Entry:
    """A section as written on the wire; the defaults are a sound one: +2 at 3 and -2 at 13."""

    kind: int = 1
    mode: int = 0
    width: int = 0
    start: int = 0
    length: int = SIZE
    count: int = 2
    step: float = 2.0
    c0: float = 2.0
    r: float = 0.0
    escapes: int = 0
    streams: tuple[tuple[int, bytes], ...] = (
        (0, b"\x03\x09"),
        (0, b""),
        (0, b"\x02"),
        (0, b""),
        (0, b""),
        (0, b""),
    )

    def stream(self, number: int, data: bytes, coder: int = 0) -> Entry:
        streams = list(self.streams)
        streams[number] = (coder, data)
        return replace(self, streams=tuple(streams))


@dataclass(frozen=True)
class Forge:
    """A frame whose every field can be wrong; `table` replaces the one made of the entries."""

    entries: tuple[Entry, ...] = field(default_factory=lambda: (Entry(),))
    magic: bytes = b"EFLU"
    version: int = 1
    flags: int = 0
    schema_id: bytes = SCHEMA
    base: int = 7
    meta: bytes = b""
    sections: int | None = None
    meta_length: int | None = None
    total: int | None = None
    tail: bytes = b""
    table: bytes | None = None

    def __call__(self) -> bytes:
        table = b"".join(map(_entry, self.entries)) if self.table is None else self.table
        streams = b"".join(data for e in self.entries for _, data in e.streams)
        sections = len(self.entries) if self.sections is None else self.sections
        meta_length = len(self.meta) if self.meta_length is None else self.meta_length
        length = 28 + len(self.meta) + len(table) + len(streams) + len(self.tail) + 4
        total = length if self.total is None else self.total
        head = self.magic + struct.pack("<BBH", self.version, 0, self.flags) + self.schema_id
        head += struct.pack("<IHHI", self.base, sections, meta_length, total)
        body = head + self.meta + table + streams + self.tail
        return body + struct.pack("<I", zlib.crc32(body))


def _entry(e: Entry) -> bytes:
    fixed = struct.pack(
        "<BBBBQQIfffI",
        e.kind,
        e.mode,
        e.width,
        len(e.streams),
        e.start,
        e.length,
        e.count,
        e.step,
        e.c0,
        e.r,
        e.escapes,
    )
    return fixed + b"".join(struct.pack("<BI", coder, len(data)) for coder, data in e.streams)


def _bits(data: bytes) -> Iterator[int]:
    return (byte >> i & 1 for byte in data for i in range(8))


def _number(bits: Iterator[int], width: int) -> int:
    return sum(next(bits) << i for i in range(width))


def _numbers(tokens: bytes, extra: bytes) -> list[int]:
    bits = _bits(extra)
    numbers = []
    for token in tokens:
        octave, quarter = divmod(token - 16, 4)
        if token < 16:
            numbers.append(token)
        else:
            numbers.append(((4 + quarter) << (octave + 2)) + _number(bits, octave + 2))
    return numbers


def _restore(coder: int, data: bytes) -> bytes:
    if coder == 2:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return zlib.decompress(data, -15) if coder == 1 else data


def _sparse(fields: tuple[Any, ...], streams: list[bytes]) -> Iterator[tuple[int, float]]:
    _, mode, width, start, _, count, step, c0, r, escapes = fields
    if mode == 1:
        places = [i for i, bit in enumerate(_bits(streams[0])) if bit]
    else:
        places = list(_positions(_numbers(streams[0], streams[1])))
    over = _numbers(streams[4], streams[5])
    if width == 16:
        raised = dict(zip(_positions(over[:escapes]), over[escapes:], strict=True))
        levels = [raised[i] + 1 if i in raised else 0 for i in range(count)]
    else:
        levels, rest, plane = [], iter(over), _bits(streams[3])
        for _ in range(count):
            level = _number(plane, width)
            levels.append(level + next(rest) if width and level == (1 << width) - 1 else level)
    for place, level, sign in zip(places, levels, _bits(streams[2]), strict=False):
        magnitude = float(np.float32(c0 + (level + r) * step)) if level else c0
        yield start + place, -magnitude if sign else magnitude


def _positions(gaps: list[int]) -> Iterator[int]:
    at = -1
    for gap in gaps:
        at += gap + 1
        yield at


def _integers(data: bytes, width: int, count: int) -> list[int]:
    bits = _bits(data)
    numbers = [_number(bits, width) for _ in range(count)]
    return [n - (1 << width) if n >> (width - 1) else n for n in numbers]


def _chosen(seed: int, length: int, count: int) -> list[int]:
    def key(i: int) -> int:
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) % (1 << 64)
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
        z = (z ^ z >> 27) * 0x94D049BB133111EB % (1 << 64)
        return z ^ z >> 31

    return sorted(sorted(range(length), key=key)[:count])


def _section(fields: tuple[Any, ...], streams: list[bytes]) -> Iterator[tuple[int, float]]:
    kind, _, width, start, length, count, step, *_ = fields
    if kind == 1:
        return _sparse(fields, streams)
    places = range(length) if kind != 5 else _chosen(int.from_bytes(streams[0], "little"), length, count)
    if kind in (3, 4):
        numbers = struct.unpack(f"<{count}{'f' if kind == 3 else 'e'}", _interleaved(streams))
    else:
        numbers = tuple(_integers(streams[-1], width, count))
    return ((start + place, float(np.float32(n * step))) for place, n in zip(places, numbers, strict=True))


def _interleaved(planes: list[bytes]) -> bytes:
    return bytes(byte for number in zip(*planes, strict=True) for byte in number)


def _plain_table(frame: bytes, at: int, sections: int) -> tuple[list[Any], int]:
    table = []
    for _ in range(sections):
        kind, mode, width, streams, *rest = struct.unpack_from("<BBBBQQIfffI", frame, at)
        at += 40
        sizes = [struct.unpack_from("<BI", frame, at + 5 * i) for i in range(streams)]
        table.append(((kind, mode, width, *rest), sizes))
        at += 5 * streams
    return table, at


def _compact_table(frame: bytes, at: int, sections: int) -> tuple[list[Any], int]:
    data, end, table = io.BytesIO(frame[at:]), 0, []

    def varint() -> int:
        value = shift = 0
        while True:
            byte = data.read(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    for _ in range(sections):
        head, spread = data.read(1)[0], varint()
        start = end + (varint() if spread & 1 else 0)
        count, (step,) = varint(), struct.unpack("<f", data.read(4))
        c0 = step if head & 128 else struct.unpack("<f", data.read(4))[0]
        r = struct.unpack("<b", data.read(1))[0] / 128
        kind, width = head & 7, (0, 1, 2, 4, 8, 16)[head >> 3 & 7]
        escapes = varint() if width == 16 else 0
        streams = [varint() for _ in range({1: 6, 2: 1, 3: 4, 4: 2, 5: 2}[kind])]
        end = start + (spread >> 1)
        fields = (kind, head >> 6 & 1, width, start, spread >> 1, count, step, c0, r, escapes)
        table.append((fields, [(s & 3, s >> 2) for s in streams]))
    return table, at + data.tell()


def _plain_decode(frame: bytes) -> dict[int, float]:
    flags, sections, meta_length = (
        struct.unpack_from("<H", frame, 6)[0],
        *struct.unpack_from("<HH", frame, 20),
    )
    table, at = (_compact_table if flags & 2 else _plain_table)(frame, 28 + meta_length, sections)
    update: dict[int, float] = {}
    for fields, sizes in table:
        streams = []
        for coder, size in sizes:
            streams.append(_restore(coder, frame[at : at + size]))
            at += size
        update.update(_section(fields, streams))
    return update


@pytest.fixture
def plain_decode() -> Callable[[bytes], dict[int, float]]:
    """A decoder in plain Python that trusts its input."""
    return _plain_decode


@pytest.fixture
def forge() -> Forge:
    """A sound frame; `replace` its fields to break it, call it for the bytes."""
    return Forge()


@pytest.fixture
def entry() -> Entry:
    """A sound section."""
    return Entry()


@pytest.fixture
def limits() -> Limits:
    """What the forged frames are held against."""
    return Limits(SCHEMA, SIZE, max_nonzeros=100, versions=range(5, 9), max_magnitude=1e6)
