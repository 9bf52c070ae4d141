# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl.delta import Encoded, Limits, Residual, apply_feedback, carry, decode, encode
from edgefl.delta.bits import Array
from edgefl.errors import DataShape

ID = b"schema-8"
PAIRS = arrays(
    np.float32, st.tuples(st.just(2), st.integers(1, 300)), elements=st.floats(-1e3, 1e3, width=32)
)


def code(vector: Array, density: float = 0.05) -> Encoded:
    return encode(vector, schema_id=ID, base_version=4, density=density)


feed = functools.partial(apply_feedback, schema_id=ID, base_version=4)


@given(PAIRS)
def test_feedback_conserves_mass(pair: Array) -> None:
    delta, before = pair

    encoded, after = feed(delta, Residual(before.copy(), ID, 3), code)

    sent = decode(encoded.frame, Limits(ID, delta.size)).dense()
    assert np.allclose(sent.astype(np.float64) + after.vector, delta.astype(np.float64) + before, atol=1e-3)


def test_inputs_are_left_as_they_are() -> None:
    delta, before = np.arange(10, dtype=np.float32), np.ones(10, np.float32)

    feed(delta, None, code)
    feed(delta, Residual(before, ID, 3), code)

    assert delta.tolist() == list(range(10)) and before.tolist() == [1] * 10


def test_what_was_left_out_arrives_in_the_end() -> None:
    delta = np.random.default_rng(0).normal(size=200).astype(np.float32)
    residual, arrived = None, np.zeros(200)

    for _ in range(400):
        encoded, residual = feed(delta, residual, functools.partial(code, density=0.02))
        arrived += encoded.dense()

    assert np.allclose(arrived / 400, delta, atol=0.15)


def test_a_residual_decays() -> None:
    encoded, _ = feed(
        np.zeros(4, np.float32),
        Residual(np.ones(4, np.float32), ID, 3),
        functools.partial(code, density=1),
        decay=0.5,
    )

    assert encoded.dense().tolist() == [0.5] * 4


def test_momentum_adds_up_until_it_is_sent() -> None:
    def largest(vector: Array) -> Encoded:
        return encode(vector, schema_id=ID, base_version=4, k=1)

    delta, residual, sent = np.array([1.0, 0.25], np.float32), None, []
    for _ in range(3):
        encoded, residual = feed(delta, residual, largest, momentum=0.5)
        sent.append(encoded.dense().tolist())

    # Value 1: running sums 1/4, 3/8, 7/16 collect to 17/16, more than value 0.
    assert sent == [[1, 0], [1, 0], [0, 1.0625]]
    assert residual is not None and residual.momentum is not None
    assert residual.vector.tolist() == [1, 0] and residual.momentum.tolist() == [1, 0]


def test_a_residual_of_another_size_is_refused() -> None:
    with pytest.raises(DataShape, match=r"\(3,\)"):
        feed(np.zeros(4, np.float32), Residual(np.ones(3, np.float32), ID, 3), code)


@pytest.mark.parametrize(
    ("schema", "version", "kept"),
    [(ID, 10, True), (ID, 15, True), (ID, 16, False), (ID, 9, False), (b"another8", 10, False)],
)
def test_residuals_are_dropped_when_stale(schema: bytes, version: int, kept: bool) -> None:
    residual = Residual(np.ones(3, np.float32), ID, 10)

    assert (carry(residual, schema, version, max_age=5) is residual) == kept
    assert carry(None, schema, version, max_age=5) is None
