# SPDX-License-Identifier: Apache-2.0
"""SCAFFOLD against the algorithm as its paper has it (Karimireddy et al., 2020, algorithm 1), in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.delta.snapshot import decode_weights
from edgefl.errors import OptionError, Refused
from edgefl.options import CHOOSING_MODES, FederationOptions, FitOptions
from edgefl.parameters import Vector
from edgefl.runtime.algorithms import Drift, after
from edgefl.server_stub.aggregators import aggregator
from edgefl.server_stub.aggregators.scaffold import published
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.simulation import Plan
from edgefl.wire import Training
from tests.federation.unlike import HEAD, LR, MLP, STEPS, Gradient, gradient, run, skewed, slope, start

pytestmark = pytest.mark.device

TRAINING = Training.of(algorithm="scaffold", lr=LR, mode="float32")


def scaffold(
    begin: Vector, cohorts: list[list[str]], devices: list[str], of: Gradient, server_lr: float
) -> list[Vector]:
    """The paper's algorithm 1, option II, with `c` rounded to float16 on its way to devices."""
    c, model = np.zeros(len(begin)), begin.astype(np.float64)
    own = {name: np.zeros(len(begin)) for name in devices}
    versions = []
    for cohort in cohorts:
        sent, moved, changed = c.astype(np.float16).astype(np.float64), [], []
        for name in cohort:
            y = model.copy()
            for _ in range(STEPS):
                y -= LR * (of(name, y) - own[name] + sent)
            fresh = own[name] - sent + (model - y) / (STEPS * LR)
            moved.append(y - model)
            changed.append(fresh - own[name])
            own[name] = fresh
        model = model + server_lr * np.mean(moved, axis=0)
        c = c + len(cohort) / len(devices) * np.mean(changed, axis=0)
        versions.append(model)
        np.testing.assert_allclose(c, np.mean(list(own.values()), axis=0), atol=1e-12)
    return versions


@pytest.mark.parametrize(("cohort", "server_lr"), [(None, 1.0), (2, 0.8)])
def test_every_version_is_the_papers(cohort: int | None, server_lr: float) -> None:
    devices = skewed()

    versions, cohorts = run(MLP, devices, algorithm="scaffold", cohort=cohort, server_lr=server_lr)

    assert all(len(names) == (cohort or 4) for names in cohorts)
    expected = scaffold(start(MLP), cohorts, sorted(devices), gradient(devices), server_lr)
    for made, wanted in zip(versions, expected, strict=True):
        # A value of float32 beside a border of float16 may fall on its other side: 5e-4 of a small one.
        np.testing.assert_allclose(made, wanted, atol=1e-4)
    averaged, _ = run(MLP, devices, cohort=cohort, server_lr=server_lr)
    assert np.abs(averaged[-1] - expected[-1]).max() > 1e-2


def test_devices_unlike_each_other_end_where_all_of_them_together_would() -> None:
    devices, long = skewed(), {"rounds": 20, "epochs": 20, "lr": 0.5}

    reached = slope(HEAD, devices, algorithm="scaffold", **long)

    assert reached < 0.5 * slope(HEAD, devices, **long)


def test_what_was_sent_decides_what_is_remembered() -> None:
    """The server knows nothing else, and both have to remember the same change."""
    control, sent = np.array([0.5, -1.0], np.float32), np.array([0.2, 0.4], np.float32)
    fit = replace(TRAINING.fit, lr=0.1)

    first = after(fit, None, control, np.zeros(2, np.float32), 4, lambda: sent)
    assert first is not None
    np.testing.assert_allclose(first.vector, [-1.0, 0.0], atol=1e-6)
    second = after(fit, first, control, np.zeros(2, np.float32), 4, lambda: sent)
    np.testing.assert_allclose(second.vector, [-2.0, 0.0], atol=1e-6)  # type: ignore[union-attr]
    assert after(fit, Drift("feddyn", control), control, sent, 4, lambda: sent) == Drift(
        "scaffold", pytest.approx(first.vector)
    )


def test_the_control_variate_is_a_frame_of_the_newest_version() -> None:
    settings = Plan(training=TRAINING).settings(MLP, 2)
    server = Coordinator(settings, store=MemoryStore())
    schema = MLP.schema()

    frame = server.shelf.control(0)

    assert not schema.flatten(decode_weights(frame, schema, 0)).any()
    with pytest.raises(Refused, match="version 3 is not the newest, which is 0"):
        server.shelf.control(3)


def test_devices_get_values_of_float16() -> None:
    made = published(np.array([1e9, -1e9, 0.1, 1e-12], np.float32))

    assert made.dtype == np.float32 and made.tolist() == [65504.0, -65504.0, float(np.float16(0.1)), 0.0]


def test_what_does_not_go_with_it_is_refused() -> None:
    for wrong in (
        {"aggregator": "fednova"}, {"server_optimizer": "yogi"}, {"server_momentum": 0.9}, {"staleness": 2},
    ):  # fmt: skip
        with pytest.raises(OptionError, match="scaffold makes the server's step itself"):
            aggregator(FederationOptions(**wrong), TRAINING)
    for mode in CHOOSING_MODES:
        with pytest.raises(OptionError, match=f"in mode {mode} most of them would be zero"):
            aggregator(FederationOptions(), Training.of(algorithm="scaffold", lr=LR, mode=mode))
    for other in (
        {"lr": None}, {"momentum": 0.5}, {"optimizer": "adam"}, {"schedule": "cosine"}, {"mu": 0.1},
        {"lr_decay": 0.9}, {"weight_decay": 0.1}, {"validation": 0.2, "patience": 1},
    ):  # fmt: skip
        with pytest.raises(OptionError, match=f"{list(other)[-1]}=.*scaffold takes a device's mean gradient"):
            FitOptions(**{"algorithm": "scaffold", "lr": LR, **other})
