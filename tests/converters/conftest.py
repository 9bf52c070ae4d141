# SPDX-License-Identifier: Apache-2.0
"""Engines for converted files, each in its own process: tflite-runtime cannot follow TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.converters.targets import TFLiteModel

RunTFLite = Callable[[TFLiteModel, Mapping[str, Any]], dict[str, Any]]

_WORKER = Path(__file__).with_name("tflite_worker.py")


@pytest.fixture(scope="session")
def litert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunTFLite]:
    """Runs a converted graph on ai-edge-litert, by contract names."""
    yield from _engine("ai_edge_litert", tmp_path_factory.mktemp("litert"))


@pytest.fixture(scope="session")
def tflite_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunTFLite]:
    """Runs a converted graph on tflite-runtime 2.14, by contract names."""
    yield from _engine("tflite_runtime", tmp_path_factory.mktemp("tflite_runtime"))


def _engine(package: str, folder: Path) -> Iterator[RunTFLite]:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    with subprocess.Popen(
        [sys.executable, str(_WORKER), package],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def run(model: TFLiteModel, feeds: Mapping[str, Any]) -> dict[str, Any]:
            signature = model.signature
            paths = {name: str(folder / f"{name}.npz") for name in ("feeds", "results")}
            (folder / "model.tflite").write_bytes(model.data)
            np.savez(paths["feeds"], **{model.inputs[name]: value for name, value in feeds.items()})
            request = {"model": str(folder / "model.tflite"), "signature": signature, **paths}
            ask.write(json.dumps(request) + "\n")
            ask.flush()
            line = answers.readline()
            assert line, f"{package} died (exit status {process.wait()})"
            assert not json.loads(line)["error"], json.loads(line)["error"]
            with np.load(paths["results"]) as results:
                return {name: results[own] for name, own in model.outputs.items()}

        yield run
        ask.close()
