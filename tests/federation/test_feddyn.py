# SPDX-License-Identifier: Apache-2.0
"""FedDyn against the algorithm as its paper has it (Acar et al., 2021, algorithm 1), written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.errors import OptionError
from edgefl.options import FederationOptions, FitOptions
from edgefl.parameters import Vector
from edgefl.server_stub.aggregators import aggregator
from edgefl.wire import Training
from tests.federation.unlike import HEAD, LR, MLP, STEPS, Gradient, gradient, run, skewed, slope, start

pytestmark = pytest.mark.device

ALPHA = 0.3


def feddyn(begin: Vector, cohorts: list[list[str]], devices: list[str], of: Gradient) -> list[Vector]:
    """The paper's algorithm 1; a device's argmin is as many steps of gradient descent."""
    m, h, model = len(devices), np.zeros(len(begin)), begin.astype(np.float64)
    linear = {name: np.zeros(len(begin)) for name in devices}
    versions = []
    for cohort in cohorts:
        ends = {}
        for name in cohort:
            theta = model.copy()
            for _ in range(STEPS):
                theta -= LR * (of(name, theta) - linear[name] + ALPHA * (theta - model))
            linear[name] = linear[name] - ALPHA * (theta - model)
            ends[name] = theta
        h = h - ALPHA / m * sum(theta - model for theta in ends.values())
        model = sum(ends.values()) / len(cohort) - h / ALPHA
        versions.append(model)
        np.testing.assert_allclose(h, sum(linear.values()) / m, atol=1e-12)  # what makes it work
    return versions


@pytest.mark.parametrize("cohort", [None, 2])
def test_every_version_is_the_papers(cohort: int | None) -> None:
    devices = skewed()

    versions, cohorts = run(MLP, devices, algorithm="feddyn", alpha=ALPHA, cohort=cohort)

    assert all(len(names) == (cohort or 4) for names in cohorts)
    expected = feddyn(start(MLP), cohorts, sorted(devices), gradient(devices))
    for made, wanted in zip(versions, expected, strict=True):
        np.testing.assert_allclose(made, wanted, atol=2e-5)
    averaged, _ = run(MLP, devices, cohort=cohort)
    assert np.abs(averaged[-1] - expected[-1]).max() > 1e-2


def test_devices_unlike_each_other_end_where_all_of_them_together_would() -> None:
    """Where the gradient of everybody's loss is nearly zero; FedAvg stays where the devices' pulls cancel."""
    devices, long = skewed(), {"rounds": 20, "epochs": 20, "lr": 0.5}

    reached = slope(HEAD, devices, algorithm="feddyn", alpha=0.03, **long)

    assert reached < 0.5 * slope(HEAD, devices, **long)


def test_what_does_not_go_with_it_is_refused() -> None:
    training = Training.of(algorithm="feddyn", alpha=0.2, mode="float32")
    for wrong in (
        {"aggregator": "median"}, {"server_optimizer": "adam"}, {"server_lr": 0.5},
        {"server_momentum": 0.9}, {"staleness": 2},
    ):  # fmt: skip
        with pytest.raises(OptionError, match="feddyn makes the server's step itself"):
            aggregator(FederationOptions(**wrong), training)
    with pytest.raises(OptionError, match=r"population=9: only feddyn and scaffold have to know it"):
        aggregator(FederationOptions(population=9), Training())
    with pytest.raises(OptionError, match=r"alpha=0.2 with algorithm=fedavg: only feddyn has it|only feddyn"):
        FitOptions(alpha=0.2)
    for wrong in ({"algorithm": "fedsgd"}, {"alpha": 0.0, "algorithm": "feddyn"}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            FitOptions(**wrong)
