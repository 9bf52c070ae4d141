# SPDX-License-Identifier: Apache-2.0
"""An app that is no app: an engine everywhere at hand, and a phone that says what a script has.

The self-test and the tests run them; so may an application that tries its own side.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.graph import Graph, read_onnx, run
from edgefl.tensorfile import read_tensors, write_tensors


def run_onnx(artifact: str, tensors: bytes) -> bytes:
    """What NumPy makes of an ONNX file's inputs, as `HostEngine.run` gives it."""
    made = run(_graph(artifact), read_tensors(tensors))
    return write_tensors({name: np.asarray(value) for name, value in made.items()})


@functools.lru_cache(maxsize=8)
def _graph(artifact: str) -> Graph:
    return read_onnx(Path(artifact).read_bytes())


class NumpyEngine:
    """A `HostEngine` on the files an app's engine gets, by NumPy."""

    def describe(self) -> str:
        return json.dumps({"name": "host-numpy", "version": np.__version__, "target": "onnx"})

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        return run_onnx(artifact, tensors)


class ScriptedPhone:
    """A `HostDevice` whose readings come one after another, the last one for ever.

    Attributes:
        events: what it was told, parsed.
    """

    def __init__(self, *script: dict[str, Any]) -> None:
        self._script = list(script) or [{}]
        self.events: list[dict[str, Any]] = []

    def reading(self) -> str:
        return json.dumps(self._script.pop(0) if len(self._script) > 1 else self._script[0])

    def stopped(self) -> bool:
        return False

    def notify(self, event: str) -> None:
        self.events.append(json.loads(event))
