# SPDX-License-Identifier: Apache-2.0
"""An app in Python: an engine that runs files by the host's LiteRT or by NumPy, and a scripted phone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.graph import read_onnx, run
from edgefl.tensorfile import read_tensors, write_tensors


class NumpyEngine:
    """Runs ONNX files by the project's own interpreter, from the file as an app has it."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.runs, self._before, self._graphs = 0, before, dict[str, Any]()

    def describe(self) -> str:
        return json.dumps({"name": "host-numpy", "version": "1", "target": "onnx"})

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        self._before()
        self.runs += 1
        graph = self._graphs.setdefault(artifact, read_onnx(Path(artifact).read_bytes()))
        made = run(graph, read_tensors(tensors))
        return write_tensors({name: np.asarray(value) for name, value in made.items()})


class Phone:
    """Readings by a script; keeps what it is told."""

    def __init__(self, *script: dict[str, Any], stop_after: int | None = None) -> None:
        self._script, self._stop_after = list(script) or [{}], stop_after
        self.asked, self.events = 0, list[dict[str, Any]]()

    def reading(self) -> str:
        return json.dumps(self._script.pop(0) if len(self._script) > 1 else self._script[0])

    def stopped(self) -> bool:
        self.asked += 1
        return self._stop_after is not None and self.asked > self._stop_after

    def notify(self, event: str) -> None:
        self.events.append(json.loads(event))
