# SPDX-License-Identifier: Apache-2.0
"""An app's Core ML where there is none: the evaluator of saved files, behind the seam an app's engine has."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.tensorfile import read_tensors, write_tensors
from tests.coreml_evaluator.model import Model, train
from tests.coreml_evaluator.update import write_parameters


class Evaluator:
    """Runs ML Programs; for those only the message classes that coremltools ships are needed."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

    def describe(self) -> str:
        return json.dumps({"name": "coreml-evaluator", "version": "1", "target": "coreml"})

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        if artifact not in self._models:
            self._models[artifact] = Model(artifact)
        model, feeds = self._models[artifact], read_tensors(tensors)
        arrays: dict[str, Any] = {
            name: feeds[name].reshape(shape).astype(dtype) for name, (shape, dtype) in model.inputs.items()
        }
        return write_tensors(model(arrays))


class UpdatingEvaluator(Evaluator):
    """Trains as the iOS bridge's `CoreMLUpdateEngine` does: a task of one mini-batch per step.

    Attributes:
        tasks: how many examples each task had.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[int] = []

    def describe(self) -> str:
        return json.dumps(
            {**json.loads(super().describe()), "name": "update-evaluator", "trains": "updatable"}
        )

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        if signature != "updatable":
            return super().run(artifact, signature, tensors)
        feeds = read_tensors(tensors)
        held: dict[str, dict[str, Any]] = {}
        for name in [name for name in feeds if "/" in name and name != "/rate"]:
            layer, _, key = name.partition("/")
            held.setdefault(layer, {})[{"weights": "weight", "biases": "bias"}[key]] = feeds.pop(name)
        rate = float(feeds.pop("/rate")[0])
        self.tasks.append(len(next(iter(feeds.values()))))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(shutil.copy(artifact, folder))
            write_parameters(path, held)
            updated = train(path, feeds, epochs=1, learning_rate=rate)
        (loss,) = updated.losses
        made = {"loss": np.array([loss], np.float32)}
        for layer, values in updated.parameters.items():
            made[f"{layer}/weights"] = values["weight"]
            if "bias" in values:
                made[f"{layer}/biases"] = values["bias"]
        return write_tensors(made)
