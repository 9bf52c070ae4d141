# SPDX-License-Identifier: Apache-2.0
"""FedDyn against the algorithm as its paper has it (Acar et al., 2021, algorithm 1), written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import OptionError
from edgefl.options import FederationOptions, FitOptions
from edgefl.parameters import Vector
from edgefl.runtime import Trainer
from edgefl.runtime.update import encode_update
from edgefl.server_stub.aggregators import aggregator
from edgefl.simulation import Plan, simulate
from edgefl.wire import Training
from tests.fixtures.make import examples

pytestmark = pytest.mark.device

FIXTURES = Path(__file__).parents[1] / "fixtures"
MLP, HEAD = (Bundle.open(FIXTURES / f"{name}.edgefl") for name in ("mlp", "head"))
ALPHA, LR, STEPS = 0.3, 0.2, 5
PLAIN = {"mode": "float32", "lr": LR, "epochs": STEPS}
Gradient = Callable[[str, Vector], Vector]


def skewed(count: int = 4) -> dict[str, Examples]:
    """Eight examples each, one batch, of mostly one class."""
    made = {}
    for i in range(count):
        x, y = examples(200, i)
        order = np.argsort(y != i % 3, kind="stable")[[0, 1, 2, 3, 4, 5, -1, -2]]
        made[f"d{i}"] = Examples(x[order], y[order])
    return made


def gradient(devices: Mapping[str, Examples]) -> Gradient:
    """Of softmax cross-entropy behind one layer of tanh, by hand, in float64."""
    schema = MLP.schema()

    def of(name: str, flat: Vector) -> Vector:
        p, at = {}, 0
        for one in schema.parameters:
            p[one.name] = flat[at : at + one.size].reshape(one.shape)
            at += one.size
        x, y = np.asarray(devices[name].x, np.float64), np.asarray(devices[name].y)
        h = np.tanh(x @ p["hidden/kernel"] + p["hidden/bias"])
        z = h @ p["head/kernel"] + p["head/bias"]
        q = np.exp(z - z.max(axis=1, keepdims=True))
        dz = (q / q.sum(axis=1, keepdims=True) - np.eye(3)[y]) / len(y)
        da = (dz @ p["head/kernel"].T) * (1 - h * h)
        found = {
            "hidden/kernel": x.T @ da,
            "hidden/bias": da.sum(axis=0),
            "head/kernel": h.T @ dz,
            "head/bias": dz.sum(axis=0),
        }
        return np.concatenate([found[one.name].ravel() for one in schema.parameters])

    return of


def feddyn(start: Vector, cohorts: list[list[str]], devices: list[str], of: Gradient) -> list[Vector]:
    """The paper's algorithm 1; a device's argmin is as many steps of gradient descent."""
    m, h, model = len(devices), np.zeros(len(start)), start.astype(np.float64)
    linear = {name: np.zeros(len(start)) for name in devices}
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


def run(
    bundle: Bundle, devices: Mapping[str, Examples], **options: Any
) -> tuple[list[Vector], list[list[str]]]:
    """Flat parameters of every version, and who took part."""
    versions, cohorts = list[Vector](), dict[int, list[str]]()
    plan = {"rounds": options.pop("rounds", 6), "cohort": options.pop("cohort", None), "downlink": 0.0}
    plan["norm_bound"] = 0.0

    def code(*arguments: Any, **given: Any) -> Any:
        cohorts.setdefault(given["base_version"], []).append(given["device"])
        return encode_update(*arguments, **given)

    simulate(
        bundle,
        devices,
        Plan(training=Training.of(**{**PLAIN, **options}), **plan),
        backend="numpy",
        code=code,
        on_round=lambda row, values: versions.append(bundle.schema().flatten(values)),
    )
    return versions, [cohorts[base] for base in sorted(cohorts)]


@pytest.mark.parametrize("cohort", [None, 2])
def test_every_version_is_the_papers(cohort: int | None) -> None:
    devices, values = skewed(), MLP.parameters()

    versions, cohorts = run(MLP, devices, algorithm="feddyn", alpha=ALPHA, cohort=cohort)

    assert all(len(names) == (cohort or 4) for names in cohorts)
    start = MLP.schema().flatten({p.name: values[p.name] for p in MLP.schema().parameters})
    expected = feddyn(start, cohorts, sorted(devices), gradient(devices))
    for made, wanted in zip(versions, expected, strict=True):
        np.testing.assert_allclose(made, wanted, atol=2e-5)
    averaged, _ = run(MLP, devices, cohort=cohort)
    assert np.abs(averaged[-1] - expected[-1]).max() > 1e-2


def test_devices_unlike_each_other_end_where_all_of_them_together_would() -> None:
    """Where the gradient of everybody's loss is nearly zero; FedAvg stays where the devices' pulls cancel."""
    devices = skewed()

    def slope(**options: Any) -> float:
        versions, _ = run(HEAD, devices, rounds=20, epochs=20, lr=0.5, **options)
        trainer = Trainer(HEAD, "numpy")
        trainer.load_parameters(HEAD.schema().unflatten(versions[-1]))
        found = [trainer.loss_and_gradients(e.x, e.y)[1] for e in devices.values()]
        return float(sum(np.linalg.norm(sum(g[name] for g in found)) for name in found[0]))

    assert slope(algorithm="feddyn", alpha=0.03) < 0.5 * slope()


def test_what_does_not_go_with_it_is_refused() -> None:
    training = Training.of(algorithm="feddyn", alpha=0.2, mode="float32")
    for wrong in (
        {"aggregator": "median"}, {"server_optimizer": "adam"}, {"server_lr": 0.5},
        {"server_momentum": 0.9}, {"staleness": 2},
    ):  # fmt: skip
        with pytest.raises(OptionError, match="feddyn makes the server's step itself"):
            aggregator(FederationOptions(**wrong), training)
    with pytest.raises(OptionError, match=r"population=9: only feddyn has to know it"):
        aggregator(FederationOptions(population=9), Training())
    with pytest.raises(OptionError, match=r"alpha=0.2 with algorithm=fedavg: only feddyn has it|only feddyn"):
        FitOptions(alpha=0.2)
    for wrong in ({"algorithm": "fedsgd"}, {"alpha": 0.0, "algorithm": "feddyn"}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            FitOptions(**wrong)
