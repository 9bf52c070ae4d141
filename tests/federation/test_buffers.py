# SPDX-License-Identifier: Apache-2.0
"""Asynchronous rounds in simulated time, by the server's own code."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.simulation import Plan, divide, simulate
from edgefl.simulation.buffers import durations
from edgefl.wire import Training
from tests.federation.test_attacks import MODEL, NAMES, examples

DEVICES = divide(examples(200), 10)
TEST = examples(300, seed=1)


def run(rounds=6, **options):
    plan = Plan(rounds=rounds, training=Training.of(lr=0.2, epochs=2, density=0.5), seed=1, **options)
    return simulate(Bundle.open(MODEL), DEVICES, plan, test=TEST, backend="numpy")


def test_equally_fast_devices_make_the_synchronous_federation():
    synchronous, buffered = run(), run(staleness=3)

    assert buffered.bundle.to_bytes() == synchronous.bundle.to_bytes()
    assert [row.loss for row in buffered.rounds] == [row.loss for row in synchronous.rounds]


def test_slow_devices_hold_nobody_up_and_count():
    done = run(rounds=20, staleness=5, cohort=3, at_work=8, spread=1.0)

    assert all(row.devices == 3 for row in done.rounds)
    assert done.rounds[-1].accuracy > 0.85
    again = run(rounds=20, staleness=5, cohort=3, at_work=8, spread=1.0)
    assert again.bundle.to_bytes() == done.bundle.to_bytes()


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_speeds_follow_from_the_seed(spread):
    drawn = durations(NAMES, spread, 1)

    assert drawn == durations(NAMES, spread, 1) and min(drawn.values()) > 0
    assert (np.std(list(drawn.values())) > 0) == (spread > 0)
