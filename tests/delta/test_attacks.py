# SPDX-License-Identifier: Apache-2.0
"""What a hostile sender may try; each attempt has its own error, and none may cost memory."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from dataclasses import replace
from typing import Any

import pytest

from edgefl.delta import Limits, decode
from edgefl.errors import (
    DeltaBase,
    DeltaChecksum,
    DeltaCoder,
    DeltaError,
    DeltaFlags,
    DeltaIndex,
    DeltaMagic,
    DeltaMeta,
    DeltaOption,
    DeltaRange,
    DeltaSchema,
    DeltaSection,
    DeltaStream,
    DeltaTooLarge,
    DeltaTrailing,
    DeltaTruncated,
    DeltaValue,
    DeltaVersion,
)

GIGABYTE = 1 << 30


def test_the_forge_makes_sound_frames(forge: Any, limits: Limits) -> None:
    update = decode(forge(), limits)

    assert update.indices.tolist() == [3, 13]
    assert update.values.tolist() == [2.0, -2.0]


@pytest.mark.parametrize("length", [0, 4, 31])
def test_fragments(forge: Any, limits: Limits, length: int) -> None:
    with pytest.raises(DeltaTruncated):
        decode(forge()[:length], limits)


def test_every_truncation_and_every_extension(forge: Any, limits: Limits) -> None:
    frame = forge()
    for length in range(len(frame)):
        with pytest.raises(DeltaTruncated):
            decode(frame[:length], limits)
    with pytest.raises(DeltaTrailing):
        decode(frame + b"\x00", limits)


def test_every_single_bit_flip_is_noticed(forge: Any, limits: Limits) -> None:
    frame = forge()
    for position in range(8 * len(frame)):
        broken = bytearray(frame)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises(DeltaError):
            decode(bytes(broken), limits)


def test_damage(forge: Any, limits: Limits) -> None:
    frame = bytearray(forge())
    frame[40] ^= 1
    with pytest.raises(DeltaChecksum):
        decode(bytes(frame), limits)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"magic": b"PK\x03\x04"}, DeltaMagic),
        ({"version": 2}, DeltaVersion),
        ({"version": 0}, DeltaVersion),
        ({"flags": 0x8000}, DeltaFlags),
        ({"schema_id": b"another!"}, DeltaSchema),
        ({"base": 4}, DeltaBase),
        ({"base": 9}, DeltaBase),
        ({"total": 0xFFFFFFFF}, DeltaTruncated),
        ({"total": 40}, DeltaTrailing),
        ({"sections": 2}, DeltaTruncated),
        ({"sections": 4096}, DeltaTruncated),
        ({"sections": 4097}, DeltaTooLarge),
        ({"sections": 0}, DeltaTrailing),
        ({"tail": b"x"}, DeltaTrailing),
        ({"meta_length": 4097}, DeltaMeta),
        ({"meta_length": 4000}, DeltaTruncated),
        ({"meta": b"[1]"}, DeltaMeta),
        ({"meta": b"\xff\xfe"}, DeltaMeta),
        ({"meta": b'{"a":NaN}'}, DeltaMeta),
        ({"meta": b"[" * 4000}, DeltaMeta),
    ],
)
def test_headers(forge: Any, limits: Limits, change: dict[str, Any], error: type[DeltaError]) -> None:
    with pytest.raises(error):
        decode(replace(forge, **change)(), replace(limits, max_bytes=1 << 16))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"kind": 0}, DeltaSection),
        ({"kind": 99}, DeltaSection),
        ({"mode": 2}, DeltaSection),
        ({"mode": 1}, DeltaSection),
        ({"width": 3}, DeltaSection),
        ({"width": 8}, DeltaSection),
        ({"escapes": 1}, DeltaSection),
        ({"escapes": 3}, DeltaSection),
        ({"escapes": 0xFFFFFFFF}, DeltaSection),
        ({"streams": ()}, DeltaSection),
        ({"streams": ((0, b""),) * 7}, DeltaSection),
        ({"start": 1}, DeltaRange),
        ({"start": (1 << 64) - 1}, DeltaRange),
        ({"length": 1001}, DeltaRange),
        ({"length": (1 << 64) - 1}, DeltaRange),
        ({"start": (1 << 64) - 1, "length": 2}, DeltaRange),
        ({"count": 0}, DeltaRange),
        ({"count": 1001}, DeltaRange),
        ({"count": 0xFFFFFFFF}, DeltaRange),
        ({"count": 101}, DeltaTooLarge),
        ({"count": 3}, DeltaStream),
        ({"length": 13}, DeltaIndex),
        ({"length": 9}, DeltaIndex),
        ({"step": float("nan")}, DeltaValue),
        ({"step": float("inf")}, DeltaValue),
        ({"step": 0.0}, DeltaValue),
        ({"step": -1.0}, DeltaValue),
        ({"step": 1e7}, DeltaValue),
        ({"c0": float("nan")}, DeltaValue),
        ({"c0": 0.0}, DeltaValue),
        ({"c0": 1e7}, DeltaValue),
        ({"r": float("nan")}, DeltaValue),
        ({"r": 1e30}, DeltaValue),
        ({"width": 1}, DeltaStream),
    ],
)
def test_sections(
    forge: Any, entry: Any, limits: Limits, change: dict[str, Any], error: type[DeltaError]
) -> None:
    with pytest.raises(error):
        decode(replace(forge, entries=(replace(entry, **change),))(), limits)


@pytest.mark.parametrize(
    ("first", "second"), [((0, 500), (499, 500)), ((500, 500), (0, 500)), ((0, 9), (0, 9))]
)
def test_overlapping_sections(
    forge: Any, entry: Any, limits: Limits, first: tuple[int, int], second: tuple[int, int]
) -> None:
    entries = tuple(replace(entry, start=start, length=length) for start, length in (first, second))
    with pytest.raises(DeltaRange, match="before ends"):
        decode(replace(forge, entries=entries)(), limits)


def test_values_are_counted_over_all_sections(forge: Any, entry: Any, limits: Limits) -> None:
    entries = tuple(replace(entry, start=20 * i, length=20) for i in range(3))

    assert len(decode(replace(forge, entries=entries)(), limits).indices) == 6
    with pytest.raises(DeltaTooLarge, match="6 values"):
        decode(replace(forge, entries=entries)(), replace(limits, max_nonzeros=5))


def test_long_frames_are_refused_unread(limits: Limits) -> None:
    with pytest.raises(DeltaTooLarge, match="at most 100"):
        decode(bytes(101), replace(limits, max_bytes=100))


@pytest.mark.parametrize(
    ("number", "data", "error"),
    [
        (0, b"\x03", DeltaStream),
        (0, b"\x03\x09\x09", DeltaStream),
        (0, b"\x03\x88", DeltaIndex),
        (0, b"\x03\x10", DeltaStream),
        (1, b"\x00", DeltaStream),
        (2, b"", DeltaStream),
        (2, b"\x06", DeltaIndex),
        (3, b"\x00", DeltaStream),
        (4, b"\x00", DeltaStream),
        (5, b"\x00", DeltaStream),
    ],
)
def test_streams(
    forge: Any, entry: Any, limits: Limits, number: int, data: bytes, error: type[DeltaError]
) -> None:
    with pytest.raises(error):
        decode(replace(forge, entries=(entry.stream(number, data),))(), limits)


def test_gaps_that_would_overflow_64_bits(forge: Any, entry: Any) -> None:
    count = 100
    huge = replace(entry, count=count).stream(0, b"\x87" * count).stream(1, b"\xff" * (31 * count // 8 + 1))
    huge = huge.stream(1, b"\xff" * (31 * count // 8) + b"\x0f").stream(2, bytes(13))
    with pytest.raises(DeltaIndex, match="gap of"):
        decode(replace(forge, entries=(huge,))(), Limits(b"schema-8", 1000))


def test_levels_beyond_float32(forge: Any, entry: Any, limits: Limits) -> None:
    top = replace(entry, width=1, escapes=1, step=3e38, c0=3e38).stream(3, b"\x01").stream(4, b"\x0f")
    with pytest.raises(DeltaValue, match="inf"):
        decode(replace(forge, entries=(top,))(), Limits(b"schema-8", 1000))
    with pytest.raises(DeltaValue, match="at most 10"):
        ten = replace(top, step=1.0, c0=1.0)
        decode(replace(forge, entries=(ten,))(), replace(limits, max_magnitude=10))


@pytest.mark.parametrize(("plane", "escapes"), [(b"\x01", 0), (b"\x00", 1), (b"\x03", 1)])
def test_escapes_must_match_the_plane(
    forge: Any, entry: Any, limits: Limits, plane: bytes, escapes: int
) -> None:
    wrong = replace(entry, width=1, escapes=escapes).stream(3, plane).stream(4, bytes(escapes))
    with pytest.raises(DeltaIndex, match="escapes"):
        decode(replace(forge, entries=(wrong,))(), limits)


def test_padding_of_planes_must_be_zero(forge: Any, entry: Any, limits: Limits) -> None:
    with pytest.raises(DeltaIndex, match="last level"):
        decode(replace(forge, entries=(replace(entry, width=2).stream(3, b"\x10"),))(), limits)


@pytest.mark.parametrize(
    ("bitmap", "count", "error"),
    [
        (b"\x01\x00", 2, DeltaIndex),
        (b"\x07\x00", 2, DeltaIndex),
        (b"\x01\x80", 2, DeltaIndex),
        (b"\x03", 2, DeltaStream),
        (b"\x03\x00\x00", 2, DeltaStream),
    ],
)
def test_bitmaps(
    forge: Any, entry: Any, limits: Limits, bitmap: bytes, count: int, error: type[DeltaError]
) -> None:
    wrong = replace(entry, mode=1, length=10, count=count).stream(0, bitmap)
    with pytest.raises(error):
        decode(replace(forge, entries=(wrong,))(), limits)


def test_a_bitmap_that_is_mostly_empty_is_refused_before_it_is_made(forge: Any, entry: Any) -> None:
    wide = replace(entry, mode=1, length=GIGABYTE).stream(0, deflate_bomb(1 << 20), coder=1)
    with pytest.raises(DeltaSection, match="bitmap"):
        decode(replace(forge, entries=(wide,))(), Limits(b"schema-8", GIGABYTE))


def deflate_bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(1 << 20)
    parts = [compressor.compress(block) for _ in range(size >> 20)]
    return b"".join(parts) + compressor.flush()


def zstd_bomb(size: int, declared: bool) -> bytes:
    """RLE blocks of 128 KiB each: four bytes of frame make 131,072 bytes of zeros."""
    header = b"\x28\xb5\x2f\xfd" + (b"\xe0" + struct.pack("<Q", size) if declared else b"\x00\x38")
    blocks = size >> 17
    more, last = (((1 << 17) << 3 | 1 << 1 | end).to_bytes(3, "little") + b"\x00" for end in (0, 1))
    return header + more * (blocks - 1) + last


def peak_of_refusal(frame: bytes, limits: Limits, error: type[DeltaError]) -> int:
    with pytest.raises(error):
        decode(frame, limits)
    tracemalloc.start()
    try:
        with pytest.raises(error):
            decode(frame, limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_deflate_bomb_costs_nothing(forge: Any, entry: Any, limits: Limits) -> None:
    frame = replace(forge, entries=(entry.stream(0, deflate_bomb(GIGABYTE // 8), coder=1),))()

    assert peak_of_refusal(frame, replace(limits, max_bytes=1 << 22), DeltaStream) < len(frame) * 3 + (
        1 << 18
    )


@pytest.mark.parametrize("declared", [True, False])
def test_a_zstd_bomb_costs_nothing(forge: Any, entry: Any, limits: Limits, declared: bool) -> None:
    pytest.importorskip("zstandard")
    frame = replace(forge, entries=(entry.stream(0, zstd_bomb(GIGABYTE, declared), coder=2),))()

    assert peak_of_refusal(frame, replace(limits, max_bytes=1 << 22), DeltaStream) < len(frame) * 3 + (
        1 << 18
    )


def test_a_huge_zstd_window_is_refused(forge: Any, entry: Any, limits: Limits) -> None:
    pytest.importorskip("zstandard")
    wide = b"\x28\xb5\x2f\xfd\x00\xa8" + b"\x01\x00\x00"
    with pytest.raises(DeltaStream, match="window"):
        decode(replace(forge, entries=(entry.stream(0, wide, coder=2),))(), limits)


def test_a_zstd_stream_of_countless_blocks_is_refused(forge: Any, entry: Any, limits: Limits) -> None:
    pytest.importorskip("zstandard")
    empty = b"\x28\xb5\x2f\xfd\x00\x38" + bytes(30_000)
    with pytest.raises(DeltaStream, match="blocks"):
        decode(
            replace(forge, entries=(entry.stream(0, empty, coder=2),))(), replace(limits, max_bytes=1 << 20)
        )


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("81 d00f 02 00000040 00 08 00 04 00 00 00", None),
        ("", DeltaTruncated),
        ("81 d00f 02 0000", DeltaTruncated),
        ("80 d00f 02 00000040 00 08 00 04 00 00 00", DeltaSection),
        ("87 d00f 02 00000040 00 08 00 04 00 00 00", DeltaSection),
        ("b1 d00f 02 00000040 00 08 00 04 00 00 00", DeltaSection),
        ("b9 d00f 02 00000040 00 08 00 04 00 00 00", DeltaSection),
        ("81 ffffffffffff 02 00000040 00 08 00 04 00 00 00", DeltaSection),
        ("81 ffffffff7f 02 00000040 00 08 00 04 00 00 00", DeltaRange),
        ("81 d10f 01 02 00000040 00 08 00 04 00 00 00", DeltaRange),
        ("81 d00f 03 00000040 00 08 00 04 00 00 00", DeltaStream),
        ("81 d00f 02 0000c07f 00 08 00 04 00 00 00", DeltaValue),
        ("01 d00f 02 00000040 00000000 00 08 00 04 00 00 00", DeltaValue),
        ("81 d00f 02 00000040 00 0c 00 04 00 00 00", DeltaTruncated),
        ("81 d00f 02 00000040 00 08 00 00 00 00 00", DeltaTrailing),
        ("a9 d00f 02 00000040 00 03 08 00 04 00 00 00", DeltaSection),
        ("a9 d00f 02 00000040 00 01 08 00 04 00 00 00", DeltaStream),
    ],
)
def test_compact_tables(forge: Any, limits: Limits, table: str, error: type[DeltaError] | None) -> None:
    frame = replace(forge, flags=2, table=bytes.fromhex(table))()
    if error is None:
        assert decode(frame, limits).values.tolist() == [2.0, -2.0]
        return
    with pytest.raises(error):
        decode(frame, limits)


@pytest.mark.parametrize(
    ("change", "streams", "error"),
    [
        ({"kind": 2, "width": 8, "length": 2}, [b"\x01\xff"], None),
        ({"kind": 2, "width": 8, "length": 3}, [b"\x01\xff"], DeltaSection),
        ({"kind": 2, "width": 2, "length": 2}, [b"\x01\xff"], DeltaSection),
        ({"kind": 2, "width": 8, "length": 2, "mode": 1}, [b"\x01\xff"], DeltaSection),
        ({"kind": 2, "width": 8, "length": 2, "escapes": 1}, [b"\x01\xff"], DeltaSection),
        ({"kind": 2, "width": 8, "length": 2}, [b"\x01"], DeltaStream),
        ({"kind": 2, "width": 4, "length": 1, "count": 1}, [b"\x10"], DeltaIndex),
        ({"kind": 3, "length": 2}, [b"\x00" * 2] * 4, None),
        ({"kind": 3, "length": 2}, [b"\x00\x00"] * 2 + [b"\xc0\x00"] + [b"\x7f\x00"], DeltaValue),
        ({"kind": 3, "length": 2}, [b"\x00\x00"] * 2 + [b"\x80\x00"] + [b"\x7f\x00"], DeltaValue),
        ({"kind": 3, "length": 3}, [b"\x00" * 2] * 4, DeltaSection),
        ({"kind": 3, "length": 2, "width": 1}, [b"\x00" * 2] * 4, DeltaSection),
        ({"kind": 4, "length": 2, "step": 1.0}, [b"\x00" * 2] * 2, None),
        ({"kind": 4, "length": 2, "step": 1.0}, [b"\x00" * 2, b"\x7e\x00"], DeltaValue),
        ({"kind": 4, "length": 2, "step": 1.0}, [b"\x00" * 2, b"\xfc\x00"], DeltaValue),
        ({"kind": 4, "length": 2, "step": 1.0}, [b"\x00" * 2] * 3, DeltaSection),
        ({"kind": 5, "width": 8}, [b"\x00" * 8, b"\x01\xff"], None),
        ({"kind": 5, "width": 8}, [b"\x00" * 7, b"\x01\xff"], DeltaStream),
        ({"kind": 5, "width": 8}, [b"\x00" * 8, b"\x01"], DeltaStream),
        ({"kind": 6, "width": 8}, [b"\x00" * 8, b"\x01\xff"], DeltaSection),
    ],
)
def test_other_kinds(
    forge: Any,
    entry: Any,
    limits: Limits,
    change: dict[str, Any],
    streams: list[bytes],
    error: type[DeltaError] | None,
) -> None:
    wrong = replace(entry, streams=tuple((0, data) for data in streams), **change)
    frame = replace(forge, entries=(wrong,))()
    if error is None:
        assert len(decode(frame, limits).values) == 2
        return
    with pytest.raises(error):
        decode(frame, limits)


def test_unknown_coders(forge: Any, entry: Any, limits: Limits) -> None:
    with pytest.raises(DeltaCoder):
        decode(replace(forge, entries=(entry.stream(0, b"\x03\x09", coder=7),))(), limits)


def test_memory_follows_the_number_of_values_not_of_parameters(forge: Any) -> None:
    last = (1 << 30) - 1
    limits = Limits(b"schema-8", 1 << 31 - 1)

    tracemalloc.start()
    decode(replace(forge, entries=(replace(forge.entries[0], length=last),))(), limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1 << 16


def test_more_parameters_than_the_arithmetic_allows_are_refused() -> None:
    with pytest.raises(DeltaOption, match="at most"):
        Limits(b"schema-8", 1 << 31)
