# SPDX-License-Identifier: Apache-2.0
"""Engines for converted files, each in its own process: tflite-runtime cannot follow TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.converters.targets import TFLiteModel

KERNELS = "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF", "AUTO"
"""What an engine may run a file with; the last has XNNPACK on top of the first."""

_WORKER = Path(__file__).with_name("tflite_worker.py")


@dataclass
class Engine:
    """An interpreter in a process of its own.

    Attributes:
        folder: for the files that go there and back.
    """

    process: subprocess.Popen[str]
    folder: Path

    def __call__(self, model: TFLiteModel, feeds: Mapping[str, Any], kernels: str = "AUTO") -> dict[str, Any]:
        """Run a converted graph, by contract names."""
        paths = {name: str(self.folder / f"{name}.npz") for name in ("feeds", "results")}
        np.savez(paths["feeds"], **{model.inputs[name]: value for name, value in feeds.items()})
        self._ask(model.data, kernels=kernels, signature=model.signature, **paths)
        with np.load(paths["results"]) as results:
            return {name: results[own] for name, own in model.outputs.items()}

    def shared(self, data: bytes) -> set[tuple[int, int, int]]:
        """Operators of a file with an input and an output at one address: `(place, input, output)`."""
        return {tuple(one) for one in self._ask(data, kernels=KERNELS[0])["shared"]}

    def _ask(self, data: bytes, **request: str) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        path = self.folder / "model.tflite"
        path.write_bytes(data)
        self.process.stdin.write(json.dumps({"model": str(path), **request}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the engine died (exit status {self.process.wait()})"
        answer: dict[str, Any] = json.loads(line)
        assert not answer["error"], answer["error"]
        return answer


@pytest.fixture(scope="session")
def litert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Runs a converted graph on ai-edge-litert, by contract names."""
    yield from _engine("ai_edge_litert", tmp_path_factory.mktemp("litert"))


@pytest.fixture(scope="session")
def tflite_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Runs a converted graph on tflite-runtime 2.14, by contract names."""
    yield from _engine("tflite_runtime", tmp_path_factory.mktemp("tflite_runtime"))


@pytest.fixture(params=["litert", "tflite_runtime"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each of the two in turn."""
    found: Engine = request.getfixturevalue(request.param)
    return found


def _engine(package: str, folder: Path) -> Iterator[Engine]:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with subprocess.Popen(
        [sys.executable, str(_WORKER), package],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Engine(process, folder)
        assert process.stdin is not None
        process.stdin.close()
