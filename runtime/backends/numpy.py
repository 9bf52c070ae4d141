# SPDX-License-Identifier: Apache-2.0
"""ONNX artifacts on the NumPy interpreter: the reference, and what runs where no engine is installed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure, ConversionError, GraphError
from edgefl.graph import Interpreter, read_onnx
from edgefl.runtime.backends.base import Array, Engine, Names, Placed, Program, artifact_of
from edgefl.runtime.delegates.choice import Placement


class NumpyBackend(Engine):
    """NumPy alone. It has no artifacts of its own: it interprets the ONNX ones."""

    name, target = "numpy", "onnx"

    def __init__(self) -> None:
        self.version = f"numpy {np.__version__}"

    def load(self, bundle: Bundle, kind: str) -> Program:
        artifact = artifact_of(bundle, self.target, kind)
        try:
            interpreter = Interpreter(read_onnx(bundle.artifact(self.target, kind)))
        except (GraphError, ConversionError) as exc:
            raise BackendFailure(f"the NumPy interpreter refuses {artifact.path}: {exc}") from exc
        names = Names.of(artifact)

        def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
            values = interpreter(names.to_own(feeds))
            return {names.to_contract(name): value for name, value in values.items()}

        return Placed(run, Placement(kind))
