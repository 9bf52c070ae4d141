# SPDX-License-Identifier: Apache-2.0
"""Exported files on the stock engines of this machine, each TFLite interpreter in a process of its own.

tflite-runtime cannot follow TensorFlow into a process, and an interpreter that dies must not take the export
with it. Where neither interpreter is installed, TensorFlow's own runs the files.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgefl.converters.targets import tflite_process
from edgefl.converters.targets.run import run_onnx, run_tflite
from edgefl.converters.targets.tflite import TFLiteModel
from edgefl.errors import MissingDependency
from edgefl.graph import Array

Rows = Sequence[Mapping[str, Array]]
"""Tensors by contract name, batch by batch."""

INTERPRETERS = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Modules and the packages that bring them."""

_WORDS = {"plain": ", built-in kernels", "auto": ""}
_LIMIT_S = 1800


@dataclass(frozen=True)
class Ran:
    """A file on one engine.

    Attributes:
        engine: name, release, and which kernels where there is a choice.
        rows: its outputs; None where it does not run the file.
        reason: why not.
    """

    engine: str
    rows: Rows | None
    reason: str = ""


def on_onnxruntime(data: bytes, feeds: Rows) -> list[Ran]:
    """An ONNX file on onnxruntime's CPU; MissingDependency where that is not installed."""
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingDependency("onnxruntime", "", "trying an exported ONNX file") from exc
    return [Ran(f"onnxruntime {onnxruntime.__version__}", run_onnx(data, feeds))]


def on_interpreters(model: TFLiteModel, feeds: Rows) -> list[Ran]:
    """A TFLite file on every interpreter here, the one most apps have first, with XNNPACK and without."""
    packages = [name for name in INTERPRETERS if importlib.util.find_spec(name) is not None]
    if not packages:
        return [Ran("TensorFlow, built-in kernels", run_tflite(model, feeds))]
    return [ran for package in packages for ran in _isolated(package, model, feeds)]


def _isolated(package: str, model: TFLiteModel, feeds: Rows) -> Iterator[Ran]:
    name = INTERPRETERS[package]
    label = f"{name} {importlib.metadata.version(name)}"
    with tempfile.TemporaryDirectory(prefix="edgefl-", ignore_cleanup_errors=True) as place:
        folder = Path(place)
        (folder / "model.tflite").write_bytes(model.data)
        stacked = {model.inputs[n]: np.stack([row[n] for row in feeds]) for n in feeds[0]}
        np.savez(folder / "feeds.npz", **stacked)
        died = _run(folder, package)
        for way in reversed(tflite_process.WAYS):
            engine, results, why = label + _WORDS[way], folder / f"{way}.npz", folder / f"{way}.txt"
            if not results.exists():
                yield Ran(engine, None, why.read_text() if why.exists() else died)
                continue
            with np.load(results) as file:
                found = {contract: file[own] for contract, own in model.outputs.items()}
            yield Ran(engine, [{n: v[i] for n, v in found.items()} for i in range(len(feeds))])


def _run(folder: Path, package: str) -> str:
    """How the process ended, for results that are missing."""
    command = [sys.executable, tflite_process.__file__, str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"no end within {_LIMIT_S} s"
    lines = done.stderr.strip().splitlines()
    return f"its process ended with status {done.returncode}: {lines[-1] if lines else 'no word'}"
