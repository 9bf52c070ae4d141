# SPDX-License-Identifier: Apache-2.0
"""Weights for inference in few bytes: close to what they stand for, and checked like any frame."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.delta.snapshot import FORMS, decode_weights, encode_weights
from edgefl.errors import DeltaBase, DeltaError, DeltaOption, DeltaSchema, NotFinite
from edgefl.parameters import Parameter, Schema

pytestmark = pytest.mark.device

SCHEMA = Schema(
    (
        Parameter("embedding", (5000, 16), "float32", "shared"),
        Parameter("dense", (40, 300), "float32", "shared"),
        Parameter("bias", (300,), "float32", "shared"),
        Parameter("zero", (3, 7), "float32", "shared"),
        Parameter("scalar", (), "float32", "shared"),
    )
)


def values(seed: int = 0) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=SCHEMA.size).astype(np.float32)
    for i, (parameter, start, stop) in enumerate(SCHEMA.ranges()):
        vector[start:stop] *= 10.0**-i
        if parameter.name == "zero":
            vector[start:stop] = 0
    return vector


@pytest.mark.parametrize(("form", "largest", "error"), [("float16", 0.5, 2.0**-11), ("int8", 0.3, 1 / 127)])
def test_weights_are_close_and_short(form, largest, error):
    vector = values()

    frame = encode_weights(vector, SCHEMA, form, 7)

    assert len(frame) < largest * 4 * SCHEMA.size
    found = decode_weights(frame, SCHEMA, 7)
    for name, expected in SCHEMA.unflatten(vector).items():
        bound = error * np.abs(expected).max(initial=0)
        np.testing.assert_allclose(found[name], expected, atol=bound, rtol=0)
    np.testing.assert_allclose(found["bias"], SCHEMA.unflatten(vector)["bias"], rtol=2.0**-10, atol=1e-9)


def test_every_row_has_a_scale_of_its_own():
    schema = Schema((Parameter("w", (4, 1000), "float32", "shared"),))
    vector = values()[:4000] * np.repeat(np.float32([1, 1e-3, 1e3, 1e-6]), 1000)

    found = decode_weights(encode_weights(vector, schema, "int8", 0), schema, 0)["w"]

    rows = vector.reshape(4, 1000)
    assert (np.abs(found - rows).max(axis=1) <= 0.51 / 127 * np.abs(rows).max(axis=1)).all()


@pytest.mark.parametrize("form", FORMS)
def test_other_versions_and_models_are_refused(form):
    frame = encode_weights(values(), SCHEMA, form, 7)

    with pytest.raises(DeltaBase):
        decode_weights(frame, SCHEMA, 8)
    with pytest.raises(DeltaSchema):
        decode_weights(frame, Schema(SCHEMA.parameters[:2]), 7)


def test_forms_and_values_outside_the_allowed_are_refused():
    with pytest.raises(DeltaOption):
        encode_weights(values(), SCHEMA, "int4", 0)
    with pytest.raises(NotFinite):
        encode_weights(np.full(SCHEMA.size, np.nan, np.float32), SCHEMA, "int8", 0)


@pytest.mark.parametrize("at", [0, 5, 30, 60, 1000, -5])
def test_damage_is_found(at):
    frame = bytearray(encode_weights(values(), SCHEMA, "int8", 7))
    frame[at] ^= 0x55

    with pytest.raises(DeltaError):
        decode_weights(bytes(frame), SCHEMA, 7)
