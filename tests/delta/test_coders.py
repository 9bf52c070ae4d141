# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zlib

import numpy as np
import pytest

from edgefl.delta import coders
from edgefl.delta.coders import DEFLATE, STORED, ZSTD, Stream, restore, smallest
from edgefl.errors import DeltaCoder, DeltaStream

SKEWED = np.random.default_rng(0).geometric(0.3, 5000).astype(np.uint8).tobytes()


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("allowed", [(), ("deflate",), ("deflate", "zstd"), ("zstd",)])
@pytest.mark.parametrize("data", [b"", b"\x00", bytes(1000), SKEWED, np.random.default_rng(1).bytes(500)])
def test_every_stream_comes_back(data: bytes, allowed: tuple[str, ...], thorough: bool) -> None:
    stream = smallest(data, allowed, thorough)

    assert restore(stream, len(data)) == data
    assert len(stream.data) <= len(data)


def test_the_smaller_coding_wins() -> None:
    best = smallest(SKEWED)

    assert len(best.data) == min(len(smallest(SKEWED, (name,)).data) for name in coders.available()[1:])
    assert smallest(np.random.default_rng(1).bytes(500)).coder == STORED


def test_without_zstandard_deflate_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coders, "zstandard", lambda: None)

    assert coders.available() == ("stored", "deflate")
    assert smallest(SKEWED).coder == DEFLATE
    with pytest.raises(DeltaCoder, match="pip install 'zstandard"):
        restore(Stream(ZSTD, b"\x28\xb5\x2f\xfd"), 4)


def deflated(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


@pytest.mark.parametrize("wrong", [0, 999, 1001])
def test_a_stream_of_another_length_is_refused(wrong: int) -> None:
    for stream in (Stream(STORED, bytes(1000)), smallest(bytes(1000), ("deflate",)), smallest(bytes(1000))):
        with pytest.raises(DeltaStream):
            restore(stream, wrong)


@pytest.mark.parametrize("data", [b"", b"\xff\xff\xff", deflated(SKEWED)[:-3], deflated(SKEWED) + b"x"])
def test_damaged_deflate_is_refused(data: bytes) -> None:
    with pytest.raises(DeltaStream, match="deflate"):
        restore(Stream(DEFLATE, data), len(SKEWED))


def test_an_unknown_coder_is_refused() -> None:
    with pytest.raises(DeltaCoder, match="coder 3"):
        restore(Stream(3, b""), 0)


def test_damaged_zstd_is_refused() -> None:
    zstandard = pytest.importorskip("zstandard")
    good = zstandard.ZstdCompressor().compress(SKEWED)
    two = zstandard.ZstdCompressor().compress(SKEWED[:2500]) + zstandard.ZstdCompressor().compress(
        SKEWED[2500:]
    )
    torn = bytearray(good)
    torn[20:40] = bytes(20)
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    for data in (
        b"",
        good[:3],
        good[:6],
        good[:-2],
        good + b"x",
        skippable + good,
        good + skippable,
        two,
        bytes(torn),
    ):
        with pytest.raises(DeltaStream, match="zstd"):
            restore(Stream(ZSTD, data), len(SKEWED))


def test_zstd_with_a_checksum_or_without_a_size_is_read() -> None:
    zstandard = pytest.importorskip("zstandard")
    for options in ({"write_checksum": True}, {"write_content_size": False}, {"level": 19}):
        data = zstandard.ZstdCompressor(**options).compress(SKEWED)
        assert restore(Stream(ZSTD, data), len(SKEWED)) == SKEWED
