# SPDX-License-Identifier: Apache-2.0
"""A bundle's Core ML packages run on its golden batch and compared with NumPy; Core ML on a Mac."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Artifact, Bundle
from edgefl.bundle.archive import unpack_package
from edgefl.converters.targets.coreml.border import Border, leaving
from edgefl.converters.targets.coreml.golden import golden_inputs
from edgefl.converters.targets.coreml.program import import_coremltools
from edgefl.converters.targets.quiet import quiet
from edgefl.errors import BackendUnavailable
from edgefl.graph import Array, Graph, read_onnx, run
from edgefl.tensorfile import read_tensors, write_tensors

UNITS = ("CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL")
"""Core ML's names for what may compute: processor, graphics, Neural Engine."""

TOLERANCE = {"step": 1e-2, "features": 1e-2, "infer": 1e-2, "step-float16": 1e-1}
"""Largest relative difference to the reference; the units may round a float32 program to float16."""

Predict = Callable[[bytes, Mapping[str, Array]], Mapping[str, Array]]
"""`(package, feeds) -> results`, by Core ML's names."""


@dataclass(frozen=True)
class Outcome:
    """One package on one choice of units.

    Attributes:
        kind: the artifact's kind.
        units: one of `UNITS`.
        difference: the worst relative difference over its outputs; None where it did not run.
        verdict: `agrees`, `differs`, or why it did not run.
    """

    kind: str
    units: str
    difference: float | None
    verdict: str


def selftest(bundle: Bundle, predict: Callable[[str], Predict]) -> Iterator[Outcome]:
    """Run each package of the bundle that has a reference on each choice of units.

    Args:
        predict: units to what runs a package on them; `on_device` where Core ML is there.
    """
    runs = {units: predict(units) for units in UNITS}
    for artifact in bundle.manifest.artifacts:
        if artifact.target == "coreml" and artifact.kind in TOLERANCE:
            for units, run_package in runs.items():
                yield _outcome(bundle, artifact, units, run_package)


def on_device(units: str) -> Predict:
    """Core ML through coremltools.

    Raises:
        BackendUnavailable: this is not macOS.
    """
    if sys.platform != "darwin":
        raise BackendUnavailable(
            f"Core ML runs on Apple systems only and this is {sys.platform}; "
            "run `edgefl selftest` with the same bundle on a Mac with macOS 13 or newer"
        )

    def predict(data: bytes, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with quiet("coremltools"), tempfile.TemporaryDirectory() as folder:
            results: Mapping[str, Array] = opened(unpack_package(data, Path(folder)), units).predict(
                dict(feeds)
            )
            return results

    return predict


def opened(package: Path, units: str) -> Any:
    """A package as coremltools' `MLModel`, for some of `UNITS`."""
    ct = import_coremltools()
    return ct.models.MLModel(str(package), compute_units=getattr(ct.ComputeUnit, units))


class MacEngine:
    """Core ML on a Mac, by the seam an app's engine has (`edgefl.runtime.host.HostEngine`)."""

    def __init__(self, units: str = "CPU_ONLY") -> None:
        """Units beside `CPU_ONLY` may compute in float16.

        Raises:
            MissingDependency: coremltools is not installed.
        """
        with quiet("coremltools"):
            self._version = str(import_coremltools().__version__)
        self._units, self._models = units, dict[str, Any]()

    def describe(self) -> str:
        return json.dumps({"name": "coreml-tools", "version": self._version, "target": "coreml"})

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        with quiet("coremltools"):
            if artifact not in self._models:
                self._models[artifact] = opened(Path(artifact), self._units)
            made = self._models[artifact].predict(read_tensors(tensors))
        return write_tensors({name: np.asarray(value) for name, value in made.items()})


def _outcome(bundle: Bundle, artifact: Artifact, units: str, predict: Predict) -> Outcome:
    kind = artifact.kind
    graph = read_onnx(bundle.artifact("onnx", kind.removesuffix("-float16")))
    feeds = golden_inputs(bundle, graph)
    try:
        found = _predicted(bundle, artifact, graph, feeds, predict)
    except Exception as exc:  # whatever Core ML raises is the outcome
        return Outcome(kind, units, None, f"failed: {exc}")
    expected = run(graph, feeds)
    least = max(1e-3 * max(float(np.linalg.norm(value)) for value in expected.values()), 1e-12)
    worst = max(
        float(np.linalg.norm(found[name] - value)) / max(float(np.linalg.norm(value)), least)
        for name, value in expected.items()
    )
    return Outcome(kind, units, worst, "agrees" if worst <= TOLERANCE[kind] else "differs")


def _predicted(
    bundle: Bundle, artifact: Artifact, graph: Graph, feeds: Mapping[str, Array], predict: Predict
) -> dict[str, Array]:
    """What a package gives, by contract names."""
    own = {name: artifact.inputs.get(name, name) for name in graph.inputs}
    arrays = {
        own[name]: Border.of(own[name], type).entering(feeds[name]) for name, type in graph.inputs.items()
    }
    made = predict(bundle.artifact("coreml", artifact.kind), arrays)
    return {
        name: leaving(made[artifact.outputs.get(name, name)], type) for name, type in graph.outputs.items()
    }
