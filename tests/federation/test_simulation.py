# SPDX-License-Identifier: Apache-2.0
"""A simulated federation is the real one: every version, frame and count of bytes, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgefl.delta import MODES
from edgefl.runtime import Trainer
from edgefl.simulation import Plan
from edgefl.wire import Training
from tests.federation import federations
from tests.federation.parity import real, virtual

TRAINING = {"epochs": 2, "lr": 0.1, "density": 0.1, "seed": 11}
ROUNDS = 3
ENGINES, OTHERS = ("numpy", "onnx"), ("tflite", "openvino")


@dataclass(frozen=True)
class Case:
    """A federation.

    Attributes:
        model: a name of `federations.MODELS`.
        training: what is changed of `TRAINING`.
        plan: what is changed of the plan.
        weighted: examples have weights.
    """

    model: str = "mlp"
    training: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    weighted: bool = False
    backend: str = "onnx"


QUICK = {
    "plain": Case(),
    "head": Case("head", weighted=True),
    "personal": Case(
        "personal", {"momentum": 0.5, "mu": 0.1, "mode": "unbiased"}, {"server_momentum": 0.5}, weighted=True
    ),
    "lora": Case("lora", {"mode": "ternary", "algorithm": "feddyn", "alpha": 0.05}),
    "frozen bits": Case("frozen bits", {"mode": "dense8", "algorithm": "scaffold"}),
    "last": Case("last", {"mode": "subset", "steps": 2, "optimizer": "adam", "clip_norm": 1.0}),
    "batchnorm frozen": Case("batchnorm frozen", {"mode": "float32"}),
    "batchnorm batch": Case(
        "batchnorm batch",
        {"mode": "dense4", "epochs": 5, "lr": 0.3, "validation": 0.3, "patience": 1},
        {"downlink": 0.0},
    ),
    "batchnorm group": Case("batchnorm group", {"mode": "float16"}),
    "dropout": Case("dropout", {"correction": 0.5, "residual_decay": 0.8, "warm_up": 2}),
    "several": Case("several", {"payload": 200}, weighted=True),
}
"""One of every kind: each model, option and mode is in one of them."""

SLOW = {
    **{
        f"{name} on {backend}": Case(name, backend=backend)
        for name in federations.MODELS
        for backend in ENGINES
    },
    **{f"{name} on {backend}": Case(name, backend=backend) for name in ("mlp", "head") for backend in OTHERS},
    **{f"mlp in {mode}": Case(training={"mode": mode}) for mode in MODES},
    **{
        f"batchnorm batch in {mode}": Case("batchnorm batch", {"mode": mode}, weighted=True) for mode in MODES
    },
    "momentum": Case(training={"momentum": 0.9}),
    "mu": Case(training={"mu": 0.5}),
    "mu and personal": Case("personal", training={"mu": 0.5}),
    "server": Case(plan={"server_momentum": 0.9, "server_lr": 0.7}),
    "whole models down": Case(plan={"downlink": 0.0}),
}
CASES = {**QUICK, **SLOW}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CASES],
)
def test_simulated_and_real_rounds_are_the_same(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    bundle, examples = federations.model(case.model)
    devices = federations.devices(examples, case.weighted)
    plan = Plan(rounds=ROUNDS, training=Training.of(**{**TRAINING, **case.training}), **case.plan)

    over_http = real(bundle, devices, plan, case.backend, tmp_path)
    simulated = virtual(bundle, devices, plan, case.backend, examples)

    assert len(over_http.frames) == ROUNDS * len(devices)
    assert simulated.frames == over_http.frames
    assert simulated.versions == over_http.versions and len(set(simulated.versions)) == ROUNDS
    assert {row.device: row.loss for row in simulated.devices} == over_http.losses
    for row, info in zip(simulated.rounds, over_http.rounds, strict=True):
        assert (row.devices, row.frame_bytes) == (info.updates, info.frame_bytes)
        assert row.loss == pytest.approx(info.loss, rel=1e-12)
    # What is told of the last version is what the bundle that is written gives.
    found = Trainer(simulated.bundle, case.backend).evaluate(examples.x, examples.y)
    assert (simulated.rounds[-1].test_loss, simulated.rounds[-1].accuracy) == (found.loss, found.accuracy)
    assert sum(row.bytes_up for row in simulated.rounds) == over_http.traffic.up - over_http.goodbyes.up
    # The seconds left in a task have a digit more or less.
    down = over_http.traffic.down - over_http.goodbyes.down
    assert sum(row.bytes_down for row in simulated.rounds) == pytest.approx(
        down, abs=4 * ROUNDS * len(devices)
    )
