# SPDX-License-Identifier: Apache-2.0
"""Weighted means of sparse updates against dense arithmetic, and the server optimizer against its formula."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgefl
from edgefl.delta import Limits, decode
from edgefl.errors import DataError, DeltaError, NotFinite
from edgefl.server_stub import aggregate
from edgefl.server_stub.aggregate import stepped
from edgefl.server_stub.aggregators import Contribution
from edgefl.server_stub.aggregators.mean import weighted_mean
from edgefl.server_stub.aggregators.optimizers import averaging


def dense(bundle, frame):
    schema = bundle.schema()
    return decode(frame, Limits(schema.id, schema.size)).dense()


def test_aggregate_is_the_weighted_mean(bundle, make_frame):
    frames, weights = [make_frame(1), make_frame(2), make_frame(3)], [1.0, 2.0, 5.0]

    made = aggregate(bundle, frames, weights)

    mean = np.average([dense(bundle, f).astype(np.float64) for f in frames], axis=0, weights=weights)
    schema = bundle.schema()
    expected = schema.flatten(bundle.parameters()) + mean
    np.testing.assert_allclose(schema.flatten(made.parameters()), expected, rtol=1e-6, atol=1e-7)
    assert made.manifest.model_version == 1


def test_order_of_payloads_changes_no_bit(bundle, make_frame):
    frames, weights = [make_frame(s) for s in range(5)], [3.0, 1.0, 4.0, 1.0, 5.0]

    forward = aggregate(bundle, frames, weights)
    backward = aggregate(bundle, frames[::-1], weights[::-1])

    assert forward.to_bytes() == backward.to_bytes()


def test_without_weights_all_count_the_same(bundle, make_frame):
    frames = [make_frame(1), make_frame(2)]

    assert aggregate(bundle, frames).to_bytes() == aggregate(bundle, frames, [7, 7]).to_bytes()


def test_public_name_is_this_function():
    assert edgefl.aggregate is aggregate


def test_importing_aggregate_needs_no_server_packages():
    code = (
        "import sys, edgefl; edgefl.aggregate; "
        "assert not {'fastapi', 'sqlalchemy', 'uvicorn', 'pydantic'} & sys.modules.keys()"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]]
)
def test_bad_weights_are_refused(bundle, make_frame, weights):
    with pytest.raises(DataError):
        aggregate(bundle, [make_frame(1), make_frame(2)], weights)


def test_no_payloads_are_refused(bundle):
    with pytest.raises(DataError, match="no updates"):
        aggregate(bundle, [])


def test_payload_of_another_version_is_refused(bundle, make_frame):
    with pytest.raises(DeltaError):
        aggregate(bundle, [make_frame(1, version=3)])


def test_momentum_adds_up():
    optimizer = averaging(lr=0.5, momentum=0.9)
    mean = np.array([1.0, -2.0])

    first, state = optimizer.apply(mean, optimizer.init(2))
    second, _ = optimizer.apply(mean, state)

    np.testing.assert_allclose(first, 0.5 * mean)
    np.testing.assert_allclose(second, 0.5 * 1.9 * mean, rtol=1e-6)


def test_plain_averaging_keeps_no_state():
    optimizer = averaging()

    step, state = optimizer.apply(np.array([3.0]), optimizer.init(1))

    assert step == [3.0] and not state


def test_parameters_must_stay_finite(bundle):
    schema = bundle.schema()

    with pytest.raises(NotFinite):
        stepped(schema, bundle.parameters(), np.full(schema.size, 1e300))


@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(1, 1000)), min_size=1, max_size=6))
def test_mean_of_sparse_equals_mean_of_dense(bundle, make_frame, senders):
    schema = bundle.schema()
    limits = Limits(schema.id, schema.size)
    updates = [Contribution(decode(make_frame(seed), limits), float(weight)) for seed, weight in senders]

    mean = weighted_mean(updates, schema.size)

    expected = np.average(
        [one.update.dense().astype(np.float64) for one in updates],
        axis=0,
        weights=[one.weight for one in updates],
    )
    np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-12)
