# SPDX-License-Identifier: Apache-2.0
"""An app in Python: an engine that runs files by the host's LiteRT or by NumPy, and a scripted phone."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.graph import Graph, read_onnx, run
from edgefl.runtime.host import run_round
from edgefl.tensorfile import read_tensors, write_tensors


def run_onnx(artifact: str, tensors: bytes) -> bytes:
    """What an ONNX file makes of tensors."""
    made = run(_graph(artifact), read_tensors(tensors))
    return write_tensors({name: np.asarray(value) for name, value in made.items()})


@functools.cache
def _graph(artifact: str) -> Graph:
    return read_onnx(Path(artifact).read_bytes())


def fill(folder: str, seed: int = 5, count: int = 40) -> None:
    """Put a device's examples in its folder."""
    rng = np.random.default_rng(seed)
    Path(folder).mkdir(parents=True, exist_ok=True)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    np.savez(Path(folder) / "examples.npz", x=x, y=rng.integers(0, 3, count).astype(np.int32))


def frame_of(bundle: str, folder: str, settings: str) -> bytes:
    """The frame of a round whose engine is Python's own."""
    return run_round(bundle, folder, NumpyEngine(), Phone(), settings)


class NumpyEngine:
    """Runs ONNX files by the project's own interpreter, from the file as an app has it."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.runs, self._before = 0, before

    def describe(self) -> str:
        return json.dumps({"name": "host-numpy", "version": "1", "target": "onnx"})

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        self._before()
        self.runs += 1
        return run_onnx(artifact, tensors)


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
