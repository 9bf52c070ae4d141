# SPDX-License-Identifier: Apache-2.0
"""Runs converted graphs in the evaluator of `tests/coreml_evaluator`, by contract names and types."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle.archive import unpack
from edgefl.converters.targets.coreml import CoreMLModel
from edgefl.graph import Graph
from tests.coreml_evaluator.model import load


def execute(model: CoreMLModel, graph: Graph, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of a converted graph, read back from disk."""
    found = run_package(model.data, {model.inputs[name]: value for name, value in feeds.items()})
    return {
        name: found[own].reshape(graph.outputs[name].shape).astype(graph.outputs[name].dtype)
        for name, own in model.outputs.items()
    }


def run_package(data: bytes, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of a package by Core ML's names."""
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(data)
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        model = load(Path(folder) / next(iter(files)).partition("/")[0])
        return model({name: at_border(feeds[name], *model.inputs[name]) for name in model.inputs})


def at_border(value: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array as Core ML takes it."""
    return np.asarray(value).astype(dtype).reshape(shape)


def difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Each result's distance over its norm, or over the largest norm where it is nearly zero."""
    largest = max(float(np.linalg.norm(value)) for value in expected.values())
    return {
        name: float(np.linalg.norm(found[name] - value))
        / max(float(np.linalg.norm(value)), 1e-3 * largest, 1e-12)
        for name, value in expected.items()
    }
