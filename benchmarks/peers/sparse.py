# SPDX-License-Identifier: Apache-2.0
"""Methods that leave most parameters out, from their papers, with the bit streams they describe."""

from __future__ import annotations

import math
import struct

import numpy as np

from benchmarks.peers.bits import Reader, gamma_length, rice, write
from benchmarks.peers.codec import Array, Arrays, Codec, Shapes, flat, sizes, unflat

DENSITY = 0.01
_HEAD = struct.Struct("<If")
_GOLDEN = (math.sqrt(5) + 1) / 2


def stc_encode(update: Arrays) -> bytes:
    """Sparse ternary compression (Sattler et al. 2019, algorithms 1 to 3): top 1 %, one magnitude, Golomb."""
    vector = flat(update)
    count = max(1, round(DENSITY * vector.size))
    chosen = np.sort(np.argpartition(np.abs(vector), -count)[-count:])
    values = vector[chosen]
    gaps = np.diff(chosen, prepend=-1) - 1
    stream = np.packbits(rice(gaps, np.signbit(values), golomb_parameter(DENSITY))).tobytes()
    return _HEAD.pack(count, float(np.abs(values).mean())) + stream


def stc_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    count, magnitude = _HEAD.unpack_from(data)
    reader, b = Reader(data[_HEAD.size :]), golomb_parameter(DENSITY)
    vector, at = np.zeros(sum(sizes(shapes)), np.float32), -1
    for _ in range(count):
        at += reader.rice(b) + 1
        vector[at] = -magnitude if reader.take(1) else magnitude
    return unflat(vector, shapes)


def golomb_parameter(density: float) -> int:
    """The paper's b* for gaps of a random subset."""
    return 1 + math.floor(math.log2(math.log(_GOLDEN - 1) / math.log(1 - density)))


def gamma_encode(update: Arrays) -> bytes:
    """Rounding to multiples of a step, then runs of zeros, signs and magnitudes in Elias gamma code.

    As TensorFlow Federated's entropy_compression_aggregator does; the step is the one that leaves 1 %.
    """
    vector = flat(update)
    count = max(1, round(DENSITY * vector.size))
    step = 2 * float(np.partition(np.abs(vector), -count)[-count])
    levels = np.rint(vector / step).astype(np.int64)
    chosen = np.flatnonzero(levels)
    runs, signs, sizes_ = np.diff(chosen, prepend=-1), levels[chosen] < 0, np.abs(levels[chosen])
    numbers = np.stack([runs, signs, sizes_], 1).ravel()
    lengths = np.stack([gamma_length(runs), np.ones(len(chosen)), gamma_length(sizes_)], 1).ravel()
    return _HEAD.pack(len(chosen), step) + np.packbits(write(numbers, lengths)).tobytes()


def gamma_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    count, step = _HEAD.unpack_from(data)
    reader = Reader(data[_HEAD.size :])
    vector, at = np.zeros(sum(sizes(shapes)), np.float32), -1
    for _ in range(count):
        at += reader.gamma()
        sign = -1 if reader.take(1) else 1
        vector[at] = sign * reader.gamma() * step
    return unflat(vector, shapes)


_SPARSITY = 1.75
_GROUP, _ZEROS, _FIRST_RUN, _LONGEST = 5, 121, 243, 14
_POWERS = 3 ** np.arange(_GROUP - 1, -1, -1)


def threelc_encode(update: Arrays) -> bytes:
    """3LC (Lim et al. 2019): three values per tensor, five to a byte, runs of zero bytes shortened."""
    parts = []
    for value in update.values():
        scale = np.float32(np.abs(value).max(initial=0) * _SPARSITY) or np.float32(1)
        ternary = np.rint(value.ravel() / scale).astype(np.int64) + 1
        padded = np.concatenate([ternary, np.ones(-len(ternary) % _GROUP, np.int64)])
        coded = _shorten((padded.reshape(-1, _GROUP) @ _POWERS).astype(np.uint8).tolist())
        parts.append(_HEAD.pack(len(coded), scale) + coded)
    return b"".join(parts)


def threelc_decode(data: bytes, shapes: Shapes) -> dict[str, Array]:
    arrays, at = {}, 0
    for name, size in zip(shapes, sizes(shapes), strict=True):
        length, scale = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        groups = np.array(_lengthen(data[at : at + length]))
        ternary = groups[:, None] // _POWERS % 3 - 1
        arrays[name] = (ternary.ravel()[:size] * np.float32(scale)).astype(np.float32).reshape(shapes[name])
        at += length
    return arrays


def _shorten(values: list[int]) -> bytes:
    """Runs of 2 to 14 zero groups become one of the bytes that groups leave unused."""
    made, run = bytearray(), 0
    for value in [*values, -1]:
        if value == _ZEROS and run < _LONGEST:
            run += 1
            continue
        if run:
            made.append(_ZEROS if run == 1 else _FIRST_RUN + run - 2)
        run = int(value == _ZEROS)
        if not run and value >= 0:
            made.append(value)
    return bytes(made)


def _lengthen(data: bytes) -> list[int]:
    made: list[int] = []
    for byte in data:
        made += [byte] if byte < _FIRST_RUN else [_ZEROS] * (byte - _FIRST_RUN + 2)
    return made


CODECS = (
    Codec("Elias gamma of runs and levels, 1 % (TFF)", "paper", gamma_encode, gamma_decode),
    Codec("STC, 1 %", "paper", stc_encode, stc_decode),
    Codec("3LC, s = 1.75", "paper", threelc_encode, threelc_decode),
)
