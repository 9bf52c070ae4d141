# SPDX-License-Identifier: Apache-2.0
"""A model's weights as one frame, for devices that only infer: float16, or int8 with a scale per row.

Both are approximations, and nobody trains from them. The frame is an update's, with the version of the
weights in the place of the base version; what limits and checks hold for updates hold for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgefl.delta import frame as frames
from edgefl.delta import ints, raw
from edgefl.delta.codec import decode
from edgefl.delta.frame import Header, Limits
from edgefl.delta.table import Coded
from edgefl.errors import DeltaOption, NotFinite
from edgefl.parameters import Arrays, Parameter, Schema, Vector

FORMS = ("int8", "float16")

# Shorter runs are not worth a scale and a stream of their own.
_SHORTEST = 256
_MOST_SECTIONS = 3000
_CODERS = ("stored", "deflate")


def encode_weights(vector: Vector, schema: Schema, form: str, version: int) -> bytes:
    """Code flat shared parameters.

    Args:
        vector: float32 of shape `(schema.size,)`.
        form: `int8`, rows of a tensor's first axis with a scale each, the rest as float16; or `float16`.

    Raises:
        DeltaOption: another form.
        NotFinite: NaN or infinity among the weights.
    """
    if form not in FORMS:
        raise DeltaOption(f"weights as {form!r}, allowed are {', '.join(FORMS)}")
    if not np.isfinite(vector).all():
        raise NotFinite("the weights have NaN or infinity")
    runs = _rows(schema) if form == "int8" else ((0, schema.size, False),)
    sections = tuple(_coded(vector, start, stop, small) for start, stop, small in runs if stop > start)
    return frames.pack(Header(schema.id, version, frames.COMPACT, {}), sections)


def decode_weights(frame: bytes, schema: Schema, version: int) -> Arrays:
    """The shared parameters by name.

    Raises:
        DeltaError: its subclass for the first thing found wrong.
    """
    limits = Limits(schema.id, schema.size, versions=(version,), max_bytes=len(frame))
    return schema.unflatten(decode(frame, limits).dense())


def _rows(schema: Schema) -> Iterator[tuple[int, int, bool]]:
    """Runs of parameters, and whether they become int8: biases and norms are few and matter too much."""
    shortest = max(_SHORTEST, -(-schema.size // _MOST_SECTIONS))
    for parameter, start, stop in schema.ranges():
        if len(parameter.shape) < 2:
            yield start, stop, False
            continue
        row = _row_length(parameter, shortest)
        for at in range(start, stop, row):
            yield at, min(at + row, stop), True


def _row_length(parameter: Parameter, shortest: int) -> int:
    row = max(1, parameter.size // max(1, parameter.shape[0]))
    return row * max(1, -(-shortest // row))


def _coded(vector: Vector, start: int, stop: int, small: bool) -> Coded:
    piece = vector[start:stop]
    top = float(np.abs(piece).max())
    if not small or not top:
        return raw.encode(start, piece, raw.HALF, _CODERS)[0]
    step = float(np.nextafter(np.float32(top / ints.largest(8)), np.float32(np.inf)))
    return ints.encode_dense(start, np.rint(piece / np.float64(step)), 8, step, _CODERS)
