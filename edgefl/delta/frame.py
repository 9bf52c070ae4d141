# SPDX-License-Identifier: Apache-2.0
"""The frame "EFLU" version 1: header, metadata, section table, streams, checksum.

Little-endian everywhere. `parse` trusts nothing: what the frame may contain is given by `Limits`, which come
from the task, and every declared size is checked before anything of that size is made.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgefl.delta import table
from edgefl.delta.coders import Stream
from edgefl.delta.grid import Grid
from edgefl.delta.table import Coded, Entry, Section
from edgefl.errors import (
    DeltaBase,
    DeltaChecksum,
    DeltaFlags,
    DeltaMagic,
    DeltaMeta,
    DeltaOption,
    DeltaRange,
    DeltaSchema,
    DeltaSection,
    DeltaTooLarge,
    DeltaTrailing,
    DeltaTruncated,
    DeltaValue,
    DeltaVersion,
)

MAGIC = b"EFLU"
VERSION = 1
UNBIASED = 1
"""Flag bit 0: the values are unbiased, their average over many devices is the mean."""

COMPACT = 2
"""Flag bit 1: the section table has the compact layout."""

KNOWN_FLAGS = UNBIASED | COMPACT
MAX_META = 4096
MAX_SECTIONS = 4096
"""Most sections of a frame: each costs a decoder a tenth of a millisecond, however small it is."""

MAX_SIZE = (1 << 31) - 1
"""Most parameters an update may cover; products of counts and lengths then fit 63 bits."""

HEADER = struct.Struct("<4sBBH8sIHHI")
CHECKSUM = struct.Struct("<I")
SMALLEST_FRAME = HEADER.size + CHECKSUM.size
_FLOAT32_MAX = 3.4028234663852886e38


@dataclass(frozen=True)
class Limits:
    """What the task allows a frame to be.

    Attributes:
        schema_id: the schema's 8 bytes.
        size: number of parameters the update covers.
        max_nonzeros: most values a frame may carry (default: all).
        versions: base versions accepted (default: any).
        max_bytes: longest frame (default: 16 bytes per parameter and 64 kB).
        max_magnitude: largest absolute value (default: whatever float32 holds).
    """

    schema_id: bytes
    size: int
    max_nonzeros: int | None = None
    versions: Container[int] | None = None
    max_bytes: int | None = None
    max_magnitude: float = _FLOAT32_MAX

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise DeltaOption(f"an update of {self.size} parameters, at most {MAX_SIZE} are supported")

    @property
    def nonzero_cap(self) -> int:
        return self.size if self.max_nonzeros is None else min(self.max_nonzeros, self.size)

    @property
    def byte_cap(self) -> int:
        return 16 * self.size + 65536 if self.max_bytes is None else self.max_bytes


@dataclass(frozen=True)
class Header:
    """The first 28 bytes and the metadata.

    Attributes:
        schema_id: 8 bytes.
        base_version: model version the update starts from.
        flags: `UNBIASED`, `COMPACT`, both or 0.
        meta: small facts for metrics; nothing that steers aggregation belongs here.
        sections: number of sections.
    """

    schema_id: bytes
    base_version: int
    flags: int
    meta: Mapping[str, Any]
    sections: int = 0


def pack(header: Header, sections: Sequence[Coded]) -> bytes:
    """The frame's bytes.

    Raises:
        DeltaMeta: the metadata is not JSON or over 4096 bytes.
        DeltaTooLarge: the frame would exceed 4 GiB or 4096 sections.
    """
    _check_sections(len(sections))
    meta = _encode_meta(header.meta)
    entries = b"".join(_write_table(header, sections))
    streams = b"".join(stream.data for coded in sections for stream in coded.streams)
    total = SMALLEST_FRAME + len(meta) + len(entries) + len(streams)
    if total >> 32:
        raise DeltaTooLarge(f"the frame would have {total} bytes, the format allows {(1 << 32) - 1}")
    head = HEADER.pack(
        MAGIC,
        VERSION,
        0,
        header.flags,
        header.schema_id,
        header.base_version,
        len(sections),
        len(meta),
        total,
    )
    body = b"".join((head, meta, entries, streams))
    return body + CHECKSUM.pack(zlib.crc32(body))


def parse(frame: bytes, limits: Limits, stream_counts: Mapping[int, int]) -> tuple[Header, list[Coded]]:
    """Header and sections, their streams still compressed.

    Args:
        stream_counts: streams of every known kind of section.

    Raises:
        DeltaError: the subclass for the first obligation that fails, in the order of docs/codec.md.
    """
    _check_length(frame, limits)
    header, at = _parse_header(frame, limits)
    _check_sections(header.sections)
    entries = _read_table(frame, at, header, stream_counts)
    _check_ranges([entry.section for entry in entries], limits)
    return header, _cut_streams(frame, entries[-1].end if entries else at, entries)


def _write_table(header: Header, sections: Sequence[Coded]) -> Iterator[bytes]:
    end = 0
    for coded in sections:
        if header.flags & COMPACT:
            yield table.write_compact(coded, end)
        else:
            yield table.write_plain(coded)
        end = coded.section.start + coded.section.length


def _read_table(frame: bytes, at: int, header: Header, stream_counts: Mapping[int, int]) -> list[Entry]:
    entries: list[Entry] = []
    limit, end = len(frame) - CHECKSUM.size, 0
    for _ in range(header.sections):
        if header.flags & COMPACT:
            entry = table.read_compact(frame, at, limit, stream_counts, end)
        else:
            entry = table.read_plain(frame, at, limit, stream_counts)
        at, end = entry.end, entry.section.start + entry.section.length
        entries.append(entry)
    return entries


def _check_length(frame: bytes, limits: Limits) -> None:
    if len(frame) > limits.byte_cap:
        raise DeltaTooLarge(f"frame of {len(frame)} bytes, at most {limits.byte_cap} are allowed")
    if len(frame) < SMALLEST_FRAME:
        raise DeltaTruncated(f"{len(frame)} bytes, the smallest frame has {SMALLEST_FRAME}")
    if frame[:4] != MAGIC:
        raise DeltaMagic(f"begins with {bytes(frame[:4])!r}, an update begins with {MAGIC!r}")
    declared = HEADER.unpack_from(frame)[-1]
    if declared > len(frame):
        raise DeltaTruncated(f"frame declares {declared} bytes and has {len(frame)}")
    if declared < len(frame):
        raise DeltaTrailing(f"frame declares {declared} bytes and has {len(frame)}")
    if CHECKSUM.unpack_from(frame, len(frame) - 4)[0] != zlib.crc32(memoryview(frame)[:-4]):
        raise DeltaChecksum("checksum differs: the frame was damaged on the way")


def _parse_header(frame: bytes, limits: Limits) -> tuple[Header, int]:
    _, version, _, flags, schema_id, base, sections, meta_length, _ = HEADER.unpack_from(frame)
    if version != VERSION:
        raise DeltaVersion(f"frame version {version}, this release reads {VERSION}")
    if flags & ~KNOWN_FLAGS:
        raise DeltaFlags(f"flags {flags:#06x}, known are {KNOWN_FLAGS:#06x}")
    if schema_id != limits.schema_id:
        raise DeltaSchema(f"made for schema {schema_id.hex()}, the task has {limits.schema_id.hex()}")
    if limits.versions is not None and base not in limits.versions:
        raise DeltaBase(f"starts from model version {base}, which the task does not accept")
    end = HEADER.size + meta_length
    return Header(schema_id, base, flags, _decode_meta(frame, meta_length), sections), end


def _check_sections(count: int) -> None:
    if count > MAX_SECTIONS:
        raise DeltaTooLarge(f"a frame of {count} sections, at most {MAX_SECTIONS} are allowed")


def _encode_meta(meta: Mapping[str, Any]) -> bytes:
    if not meta:
        return b""
    try:
        text = json.dumps(dict(meta), separators=(",", ":"), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as exc:
        raise DeltaMeta(f"metadata is not JSON: {exc}") from exc
    if len(text.encode()) > MAX_META:
        raise DeltaMeta(f"metadata of {len(text.encode())} bytes, at most {MAX_META} are allowed")
    return text.encode()


def _decode_meta(frame: bytes, length: int) -> Mapping[str, Any]:
    if length > MAX_META:
        raise DeltaMeta(f"metadata of {length} bytes, at most {MAX_META} are allowed")
    if HEADER.size + length > len(frame) - CHECKSUM.size:
        raise DeltaTruncated(f"metadata of {length} bytes does not fit the frame")
    if not length:
        return {}
    try:
        meta = json.loads(bytes(frame[HEADER.size : HEADER.size + length]), parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise DeltaMeta(f"metadata is not JSON: {exc}") from exc
    if not isinstance(meta, dict):
        raise DeltaMeta(f"metadata is a JSON {type(meta).__name__}, expected an object")
    return meta


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _check_ranges(sections: Sequence[Section], limits: Limits) -> None:
    end = total = 0
    for number, s in enumerate(sections):
        where = f"section {number} covers {s.length} parameters from {s.start}"
        if s.start < end:
            raise DeltaRange(f"{where}, but the one before ends at {end}")
        end = s.start + s.length
        if end > limits.size:
            raise DeltaRange(f"{where}, the update has {limits.size}")
        if not 0 < s.count <= s.length:
            raise DeltaRange(f"{where} and carries {s.count} values")
        if s.escapes is not None and s.escapes > s.count:
            raise DeltaSection(f"{where} and has {s.escapes} escapes for {s.count} values")
        _check_grid(s.grid, limits, where)
        total += s.count
    if total > limits.nonzero_cap:
        raise DeltaTooLarge(f"frame carries {total} values, at most {limits.nonzero_cap} are allowed")


def _check_grid(grid: Grid, limits: Limits, where: str) -> None:
    cap = limits.max_magnitude
    # Comparisons with NaN are false, so this refuses it as well.
    if not (0 < grid.step <= cap and 0 < grid.c0 <= cap and abs(grid.r) <= 1):
        raise DeltaValue(
            f"{where}: step {grid.step}, c0 {grid.c0}, r {grid.r}; "
            f"step and c0 must be in (0, {cap}], r in [-1, 1]"
        )


def _cut_streams(frame: bytes, at: int, entries: Sequence[Entry]) -> list[Coded]:
    end, needed = len(frame) - CHECKSUM.size, sum(size for entry in entries for _, size in entry.streams)
    if at + needed > end:
        raise DeltaTruncated(f"streams declare {needed} bytes, {end - at} are left")
    if at + needed < end:
        raise DeltaTrailing(f"streams declare {needed} bytes, {end - at} are left")
    coded = []
    for entry in entries:
        streams = []
        for coder, size in entry.streams:
            streams.append(Stream(coder, bytes(frame[at : at + size])))
            at += size
        coded.append(Coded(entry.section, tuple(streams)))
    return coded
