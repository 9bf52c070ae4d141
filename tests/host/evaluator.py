# SPDX-License-Identifier: Apache-2.0
"""An app's Core ML where there is none: the evaluator of saved files, behind the seam an app's engine has."""

from __future__ import annotations

import json
from typing import Any

from edgefl.tensorfile import read_tensors, write_tensors
from tests.coreml_evaluator.model import Model


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
