# SPDX-License-Identifier: Apache-2.0
"""A way of sending an update, and what is measured of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Shapes = Mapping[str, tuple[int, ...]]
"""Receivers know names and shapes from the model; no codec here sends them unless it always does."""

_REPEATS = 3


@dataclass(frozen=True)
class Codec:
    """One way of sending.

    Attributes:
        name: with its settings.
        source: where it comes from: a release with its version, or `paper`, written down here.
        encode: arrays to all the bytes that are sent.
        decode: those bytes and the shapes to arrays.
    """

    name: str
    source: str
    encode: Callable[[Arrays], bytes]
    decode: Callable[[bytes, Shapes], dict[str, Array]]


@dataclass(frozen=True)
class Measured:
    """One codec on one update.

    Attributes:
        data: which update.
        name, source: as the codec's.
        bytes: sent.
        times_smaller: dense float32, four bytes per parameter, over bytes.
        nmse: squared error over the squared length of the update; 0 is lossless.
        encode_ms: median processor time of one encoding.
        note: what a reader must know.
    """

    data: str
    name: str
    source: str
    bytes: int
    times_smaller: float
    nmse: float
    encode_ms: float
    note: str = ""


def measure(data: str, update: Arrays, codec: Codec) -> Measured:
    """Encode, decode, compare."""
    times = []
    for _ in range(_REPEATS):
        begin = time.process_time()
        sent = codec.encode(update)
        times.append(1e3 * (time.process_time() - begin))
    received = codec.decode(sent, {name: value.shape for name, value in update.items()})
    size = 4 * sum(value.size for value in update.values())
    return Measured(
        data,
        codec.name,
        codec.source,
        len(sent),
        size / len(sent),
        nmse(update, received),
        float(np.median(times)),
    )


def nmse(update: Arrays, received: Arrays) -> float:
    """Squared error over squared length, in float64."""
    sent, got = flat(update).astype(np.float64), flat(received).astype(np.float64)
    return float(np.sum((sent - got) ** 2) / np.sum(sent**2))


def flat(arrays: Arrays) -> Array:
    """All values as one float32 vector, in the arrays' order."""
    return np.concatenate([np.asarray(value, np.float32).ravel() for value in arrays.values()])


def unflat(vector: Array, shapes: Shapes) -> dict[str, Array]:
    """The arrays of a vector."""
    arrays, start = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        arrays[name] = vector[start : start + size].reshape(shape)
        start += size
    return arrays


def sizes(shapes: Shapes) -> list[int]:
    """Elements of every array."""
    return [int(np.prod(shape)) for shape in shapes.values()]
