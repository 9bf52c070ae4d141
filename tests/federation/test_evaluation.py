# SPDX-License-Identifier: Apache-2.0
"""Versions measured by devices: the same over HTTP as simulated, bit by bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgefl.runtime import Trainer
from edgefl.runtime.holdout import Divided
from edgefl.runtime.store.source import Fixed
from edgefl.simulation import Plan
from edgefl.wire import EvaluationInfo, Training
from tests.federation import federations
from tests.federation.parity import real, virtual

ROUNDS, HOLDOUT = 3, 0.3


def timeless(info: EvaluationInfo) -> EvaluationInfo:
    return replace(info, opened_at=0.0, until=0.0)


@pytest.mark.parametrize(
    "model", ["mlp", "personal", pytest.param("batchnorm batch", marks=pytest.mark.slow)]
)
def test_devices_find_the_same_over_http_and_simulated(model: str, tmp_path: Path) -> None:
    bundle, examples = federations.model(model)
    devices = federations.devices(examples, weighted=True)
    training = Training.of(epochs=2, lr=0.1, density=0.1, seed=11)
    plan = Plan(rounds=ROUNDS, training=training, evaluate_every=2, evaluators=len(devices), holdout=HOLDOUT)

    over_http = real(bundle, devices, plan, "onnx", tmp_path)
    simulated = virtual(bundle, devices, plan, "onnx", examples)

    assert simulated.frames == over_http.frames and simulated.versions == over_http.versions
    first = bundle.manifest.model_version
    found = list(map(timeless, over_http.evaluations))
    assert list(map(timeless, simulated.evaluations)) == found
    # Every second one from the first on, and the last.
    assert [one.version - first for one in found] == [0, 2, 3]
    assert all((one.state, one.devices) == ("closed", len(devices)) for one in found)
    rows = [row.held_out_loss for row in simulated.rounds]
    assert rows == [None, found[1].loss, found[2].loss]


def test_what_is_found_is_what_the_trainer_finds_on_the_examples_held_out() -> None:
    bundle, examples = federations.model("mlp")
    devices = federations.devices(examples, weighted=False)
    plan = Plan(rounds=1, training=Training.of(lr=0.1), evaluate_every=1, holdout=HOLDOUT)

    found = virtual(bundle, devices, plan, "numpy", examples).evaluations[0]

    trainer, each = Trainer(bundle, "numpy"), []
    for mine in devices.values():
        held = Divided(Fixed(mine), bundle.manifest, HOLDOUT).take_held_out()
        each.append(trainer.evaluate(held.x, held.y))
    assert found.examples == sum(m.examples for m in each) > 0
    assert found.loss == pytest.approx(sum(m.loss * m.examples for m in each) / found.examples, rel=1e-12)
    assert found.median_loss == sorted(m.loss for m in each)[len(each) // 2]
    right = sum((m.accuracy or 0.0) * m.examples for m in each)
    assert found.accuracy == pytest.approx(right / found.examples, rel=1e-12)
