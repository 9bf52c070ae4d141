# SPDX-License-Identifier: Apache-2.0
"""What the federation is measured against: the same model trained centrally, and its int8 export."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.cli.demo.recipe import BATCH, Recipe
from edgefl.cli.demo.watch import Split
from edgefl.data import Examples
from edgefl.runtime import Trainer
from edgefl.simulation import simulate

Array = npt.NDArray[Any]
Parameters = Mapping[str, Array]
CENTRAL_SNAPSHOTS = 10  # of the yardstick, averaged as the last rounds are
CALIBRATION = 256  # examples, drawn from the training devices


@dataclass(frozen=True)
class Accuracies:
    """Held-out accuracies for one pair of people, and how many examples they are counted on."""

    held_out: tuple[int, ...]
    examples: int
    federated: float
    central: float
    int8: dict[str, float]


def central(bundle: Bundle, split: Split, recipe: Recipe, seed: int) -> float:
    """Accuracy of the model trained on all data in one place, with as many steps of the same size."""
    x, y = split.pooled()
    trainer = Trainer(bundle)

    def fit(steps: int, part: int) -> None:
        trainer.fit(
            x,
            y,
            epochs=1 + steps * BATCH // len(y),
            steps=steps,
            lr=recipe.central_lr,
            momentum=recipe.central_momentum,
            seed=seed + part,
        )

    tail = recipe.steps * recipe.averaged // recipe.rounds
    fit(max(1, recipe.steps - tail), 0)
    kept = []
    for part in range(1, CENTRAL_SNAPSHOTS + 1):
        fit(max(1, tail // CENTRAL_SNAPSHOTS), part)
        kept.append(trainer.parameters())
    trainer.load_parameters(mean(kept))
    return _accuracy(trainer.evaluate(*split.test).accuracy)


def federated(bundle: Bundle, split: Split, recipe: Recipe, seed: int) -> Bundle:
    """The federation of one pair without HTTP: the same training, codec and aggregation."""
    devices = {name: Examples(x, y) for name, (x, y) in split.devices.items()}
    kept: deque[Parameters] = deque(maxlen=recipe.averaged)
    plan = recipe.plan(seed)
    final = simulate(bundle, devices, plan, on_round=lambda row, values: kept.append(values)).bundle
    return final.with_parameters(mean(kept), final.manifest.model_version)


def mean(models: Collection[Parameters]) -> dict[str, Array]:
    """The mean of several versions of the same parameters."""
    names = next(iter(models))
    return {
        n: np.mean([m[n] for m in models], axis=0, dtype=np.float64).astype(names[n].dtype) for n in names
    }


def accuracy(bundle: Bundle, split: Split) -> float:
    """Held-out accuracy of a bundle."""
    return _accuracy(Trainer(bundle).evaluate(*split.test).accuracy)


def calibration(split: Split, seed: int) -> Array:
    """Training examples for calibration: the held-out people stay unseen."""
    x, _ = split.pooled()
    chosen = np.random.default_rng(seed).permutation(len(x))[:CALIBRATION]
    return np.take(x, chosen, axis=0)


def int8_accuracy(files: dict[str, bytes], split: Split) -> dict[str, float]:
    """Held-out accuracy of int8 files, each on its stock engine, one example at a time."""
    run: dict[str, Callable[[bytes, Array], Array]] = {"onnx": _run_onnx, "tflite": _run_tflite}
    x, y = split.test
    return {target: float((run[target](data, x) == y).mean()) for target, data in files.items()}


def _run_onnx(data: bytes, x: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    classes = [int(session.run(None, {name: row[None]})[0].argmax()) for row in x]
    return np.asarray(classes)


def _run_tflite(data: bytes, x: Array) -> Array:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    classes = []
    for row in x:
        interpreter.set_tensor(given, row[None])
        interpreter.invoke()
        classes.append(interpreter.get_tensor(made).argmax())
    return np.asarray(classes)


def _accuracy(value: float | None) -> float:
    assert value is not None  # the demo's loss is a cross-entropy
    return value
