# SPDX-License-Identifier: Apache-2.0
"""Two things written from docs/codec.md alone: a decoder in plain Python, and a forge for broken frames."""

from __future__ import annotations

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
    """A frame whose every field can be wrong."""

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

    def __call__(self) -> bytes:
        table = b"".join(map(_entry, self.entries))
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
    _, mode, width, _, start, _, _, step, c0, r, _ = fields
    if mode == 1:
        places = [i for i, bit in enumerate(_bits(streams[0])) if bit]
    else:
        places, at = [], -1
        for gap in _numbers(streams[0], streams[1]):
            at += gap + 1
            places.append(at)
    signs, plane = _bits(streams[2]), _bits(streams[3])
    over = iter(_numbers(streams[4], streams[5]))
    full = (1 << width) - 1
    for place in places:
        level = _number(plane, width)
        level += next(over) if width and level == full else 0
        magnitude = float(np.float32(c0 + (level + r) * step)) if level else c0
        yield start + place, -magnitude if next(signs) else magnitude


def _plain_decode(frame: bytes) -> dict[int, float]:
    sections, meta_length = struct.unpack_from("<HH", frame, 20)
    at, table = 28 + meta_length, []
    for _ in range(sections):
        fields = struct.unpack_from("<BBBBQQIfffI", frame, at)
        at += 40
        table.append((fields, [struct.unpack_from("<BI", frame, at + 5 * i) for i in range(fields[3])]))
        at += 5 * fields[3]
    update: dict[int, float] = {}
    for fields, sizes in table:
        streams = []
        for coder, size in sizes:
            streams.append(_restore(coder, frame[at : at + size]))
            at += size
        update.update(_sparse(fields, streams))
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
