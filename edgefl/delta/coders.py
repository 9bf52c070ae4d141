# SPDX-License-Identifier: Apache-2.0
"""Byte streams, shrunk by whatever does it best, and restored under a hard cap.

A decoder always knows how many bytes a stream must decode to, and never makes more than one byte beyond that.
"""

from __future__ import annotations

import functools
import importlib
import threading
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.errors import DeltaCoder, DeltaStream
from edgefl.requirements import pip_install


@functools.cache
def zstandard() -> Any:
    """The module, looked for when first needed; None where it is not installed."""
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        return None


STORED, DEFLATE, ZSTD = 0, 1, 2
CODER_NAMES = ("stored", "deflate", "zstd")

MAX_WINDOW = 8 << 20
"""Largest zstd window accepted, in bytes."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_UNKNOWN_SIZE = (1 << 64) - 1
_SMALLEST_WORTH_CODING = 12
_HUFFMAN, _RUNS, _MATCHES = zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_DEFAULT_STRATEGY
_RUNS_PAY_BELOW = 1 << 16
_PROBE = 1 << 13
_SHORT = 1 << 17
_EFFORT, _THOROUGH = 6, 8
# Random bytes reach this from about 4,000 on; on shorter ones an attempt costs nothing.
_INCOMPRESSIBLE = 0.994

_kept = threading.local()


@dataclass(frozen=True)
class Stream:
    """One coded stream of a section: coder and compressed bytes."""

    coder: int
    data: bytes


def available() -> tuple[str, ...]:
    """Names of the coders this machine can write and read."""
    return CODER_NAMES if zstandard() else CODER_NAMES[:2]


def smallest(data: bytes, coders: Collection[str] = CODER_NAMES, thorough: bool = False) -> Stream:
    """The smallest coding of some bytes.

    Args:
        coders: names of `CODER_NAMES` that may be used; zstd is left out where it is not installed.
        thorough: search harder for repetitions, for frames that are made once and sent to many.
    """
    best = Stream(STORED, data)
    if len(data) < _SMALLEST_WORTH_CODING or entropy_bytes(data) > _INCOMPRESSIBLE * len(data):
        return best
    for stream in _attempts(data, coders, thorough):
        if len(stream.data) < len(best.data):
            best = stream
    return best


def entropy_bytes(data: bytes) -> float:
    """Order-0 entropy of bytes, in bytes."""
    counts = np.bincount(np.frombuffer(data, np.uint8))
    shares = counts[counts > 0] / max(len(data), 1)
    return float(-(shares @ np.log2(shares))) * len(data) / 8 if len(shares) else 0.0


def restore(stream: Stream, size: int) -> bytes:
    """The stream's bytes, which must be exactly `size`.

    Raises:
        DeltaStream: they are fewer, more, damaged, or followed by something else.
        DeltaCoder: the coder is unknown or not installed.
    """
    if stream.coder >= len(_RESTORERS):
        raise DeltaCoder(f"stream coder {stream.coder}, known are 0 (stored), 1 (deflate) and 2 (zstd)")
    data = _RESTORERS[stream.coder](stream.data, size)
    if len(data) != size:
        found = str(len(data)) if len(data) < size else f"more than {size}"
        raise DeltaStream(f"{CODER_NAMES[stream.coder]} stream holds {found} bytes, expected {size}")
    return data


def _attempts(data: bytes, coders: Collection[str], thorough: bool) -> Iterator[Stream]:
    # Whether looking for repeated strings pays is probed: rows of a matrix may resemble each other.
    start = max(len(data) - _PROBE, 0) // 2
    probe = data[start : start + _PROBE]
    symbols, matches = _deflate(probe, _HUFFMAN), _deflate(probe, _MATCHES)
    repeats = len(matches.data) < len(symbols.data)
    # The best search takes a second for a megabyte in which it finds nothing; a short stream costs nothing.
    searched = repeats or (thorough and len(data) < _RUNS_PAY_BELOW)
    if "deflate" in coders:
        yield symbols if probe == data else _deflate(data, _HUFFMAN)
        if len(data) < _RUNS_PAY_BELOW:
            yield _deflate(data, _RUNS)
        if searched:
            known = probe == data and not thorough
            yield matches if known else _deflate(data, _MATCHES, _THOROUGH if thorough else _EFFORT)
    if "zstd" in coders and zstandard():
        for level in (1, *([9] if searched else []), *([19] if thorough else [])):
            yield Stream(ZSTD, _compressor(level, len(data)).compress(data))


def _compressor(level: int, size: int) -> Any:
    """This thread's own for short streams, where making one takes longer than its work."""
    if size > _SHORT:
        # One that is kept would keep the memory that a long stream took.
        return zstandard().ZstdCompressor(level=level, write_content_size=False)
    kept: dict[int, Any] = _kept.__dict__.setdefault("compressors", {})
    if level not in kept:
        kept[level] = zstandard().ZstdCompressor(level=level, write_content_size=False)
    return kept[level]


def _deflate(data: bytes, strategy: int, effort: int = _EFFORT) -> Stream:
    compressor = zlib.compressobj(effort, zlib.DEFLATED, -15, 9, strategy)
    return Stream(DEFLATE, compressor.compress(data) + compressor.flush())


def _stored(data: bytes, size: int) -> bytes:
    return data


def _inflate(data: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj(-15)
    try:
        restored = inflater.decompress(data, size + 1)
    except zlib.error as exc:
        raise DeltaStream(f"deflate stream is damaged: {exc}") from exc
    if len(restored) <= size and (not inflater.eof or inflater.unused_data or inflater.unconsumed_tail):
        raise DeltaStream("deflate stream does not end where its bytes end")
    return restored


def _unzstd(data: bytes, size: int) -> bytes:
    if zstandard() is None:
        raise DeltaCoder(
            f"a stream is coded with zstd, which is not installed here: {pip_install('zstandard')}"
        )
    if _zstd_length(data, size) != len(data):
        raise DeltaStream("zstd stream does not end where its bytes end")
    reader = zstandard().ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(data)
    try:
        restored: bytes = reader.read(size + 1)
    except zstandard().ZstdError as exc:
        raise DeltaStream(f"zstd stream is damaged: {exc}") from exc
    return restored


def _zstd_length(data: bytes, size: int) -> int:
    """Bytes of the one frame that data begins with, by its block headers, after checking what it declares."""
    header = _zstd_header(data, size)
    at, blocks = header[0], size // 1024 + 4
    for _ in range(blocks):
        block = int.from_bytes(data[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == 1 else block >> 3)
        if block & 1 or at > len(data):
            return at + 4 * header[1]
    raise DeltaStream(f"zstd stream has over {blocks} blocks for {size} bytes")


def _zstd_header(data: bytes, size: int) -> tuple[int, bool]:
    """Header length and whether a checksum follows."""
    if data[:4] != _ZSTD_MAGIC:
        raise DeltaStream("zstd stream does not begin with a zstd frame")
    try:
        declared = zstandard().get_frame_parameters(data)
        length = int(zstandard().frame_header_size(data))
    except zstandard().ZstdError as exc:
        raise DeltaStream(f"zstd header is damaged: {exc}") from exc
    if declared.dict_id or declared.window_size > MAX_WINDOW:
        raise DeltaStream(f"zstd stream wants a dictionary or a window of {declared.window_size} bytes")
    if declared.content_size not in (_ZSTD_UNKNOWN_SIZE, size):
        raise DeltaStream(f"zstd stream declares {declared.content_size} bytes, expected {size}")
    return length, bool(declared.has_checksum)


_RESTORERS: tuple[Callable[[bytes, int], bytes], ...] = (_stored, _inflate, _unzstd)
