# SPDX-License-Identifier: Apache-2.0
"""Training by update tasks on updatable models, whose tasks the evaluator does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coremltools")

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.runtime import Trainer
from edgefl.runtime.host import HostBackend, take_part
from edgefl.tensorfile import read_tensors, write_tensors
from tests.host.doubles import Phone, fill
from tests.host.evaluator import UpdatingEvaluator

MODEL = Path(__file__).parents[1] / "conformance" / "vectors" / "mlp.edgefl"
ROUNDING = 2.0**-24 * 64
"""A gradient is the difference of two parameters below 2, each rounded; what leads there are sums of at most
ten terms, in three layers forwards and backwards."""


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(MODEL)


def examples(count: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    return rng.normal(size=(count, 6)).astype(np.float32), rng.integers(0, 3, count).astype(np.int32)


@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.9}, {"optimizer": "adam", "lr": 0.01}, {"mu": 0.1, "clip_norm": 0.5}],
    ids=str,
)
def test_any_rule_trains_by_tasks_as_by_the_step(bundle: Bundle, tmp_path: Path, options: Any) -> None:
    """Twenty examples in batches of eight: the last one is half full."""
    x, y = examples(20)
    engine = UpdatingEvaluator()
    ours, plain = Trainer(bundle, HostBackend(engine, tmp_path)), Trainer(bundle, "numpy")
    for trainer in (ours, plain):
        trainer.fit(x, y, **{"epochs": 2, "lr": 0.1, "seed": 1, **options})
    assert engine.tasks[-6:] == [8, 8, 4, 8, 8, 4]
    for name, value in plain.parameters().items():
        # Adam divides by the gradient's size, and so its rounding too: a step is 0.01 however small that is.
        allowed = 6 * 0.01 * 0.01 if "optimizer" in options else 6 * ROUNDING
        np.testing.assert_allclose(ours.parameters()[name], value, rtol=0, atol=allowed)


def test_examples_that_count_more_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    x, y = examples(8)
    trainer = Trainer(bundle, HostBackend(UpdatingEvaluator(), tmp_path))
    weight = np.array([1, 1, 1, 1, 2, 1, 1, 1], np.float32)
    with pytest.raises(BackendFailure, match="counts examples alike, or not at all"):
        trainer.fit(x, y, sample_weight=weight, lr=0.1)


def test_a_task_that_moves_wrongly_never_trains(bundle: Bundle, tmp_path: Path) -> None:
    class Backwards(UpdatingEvaluator):
        """A Core ML that has its layers the other way round would give such numbers."""

        def describe(self) -> str:
            return super().describe().replace("update-evaluator", "backwards")

        def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
            made = read_tensors(super().run(artifact, signature, tensors))
            return write_tensors({name: value[..., ::-1] for name, value in made.items()})

    x, y = examples(8)
    with pytest.raises(BackendFailure, match="computes step of 'mlp' wrongly"):
        Trainer(bundle, HostBackend(Backwards(), tmp_path)).fit(x, y, lr=0.1)


def test_a_task_without_parameters_is_a_failure(bundle: Bundle, tmp_path: Path) -> None:
    class Forgetful(UpdatingEvaluator):
        def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
            return write_tensors({"loss": np.zeros(1, np.float32)})

    program = HostBackend(Forgetful(), tmp_path).load(bundle, "step")
    feeds = read_tensors((MODEL.parent / "step-feeds.safetensors").read_bytes())
    with pytest.raises(BackendFailure, match="other parameters than it took: 'hidden_kernel/weights'"):
        program(feeds)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "does not say where"),
        ({"optimizer": "adam", "layers": []}, "updates by adam"),
        ({"optimizer": "sgd", "layers": []}, "trains other parameters"),
        ({"optimizer": "sgd", "layers": [{"layer": "a"}]}, "does not say where"),
    ],
    ids=["nothing", "adam", "none", "half"],
)
def test_a_bundle_must_say_where_its_parameters_are(
    bundle: Bundle, tmp_path: Path, change: Any, said: str
) -> None:
    report = {**bundle.manifest.report, "targets": {"coreml": {"updatable": change}}}
    other = replace(bundle, manifest=replace(bundle.manifest, report=report))
    with pytest.raises(BackendUnavailable, match=said):
        HostBackend(UpdatingEvaluator(), tmp_path).load(other, "step")


def test_a_device_takes_part_by_tasks(server: Callable[..., Any], tmp_path: Path) -> None:
    """From the slice that a server hands out for Core ML."""
    running = server(bundle=str(MODEL), rounds=2, goal=1, training={"epochs": 1, "lr": 0.1})
    fill(tmp_path, count=24)
    engine = UpdatingEvaluator()
    answer = json.loads(take_part(running.url, str(tmp_path), engine, Phone(), "{}"))
    assert answer["finished"] and [row["accepted"] for row in answer["rounds"]] == [True, True]
    assert answer["engine"] == "update-evaluator 1" and engine.tasks[-6:] == [8] * 6
