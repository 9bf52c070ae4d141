# SPDX-License-Identifier: Apache-2.0
"""A bundle's frozen prefix in full-integer arithmetic: what an accelerator runs once per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.targets.absorb import absorb
from edgefl.converters.targets.activations import findings, float_runner
from edgefl.converters.targets.calibration import Calibration, batches, check_calibration
from edgefl.converters.targets.quantize import TARGETS, check_targets, int8_onnx, int8_tflite
from edgefl.converters.targets.run import run_onnx, run_tflite
from edgefl.converters.targets.tflite import TFLiteModel
from edgefl.graph import Array, Graph, read_onnx


@dataclass(frozen=True)
class FeaturesReport:
    """How the int8 features compare with the float ones, over `examples` calibration examples.

    Attributes:
        error: target to the root mean square error over the float features' standard deviation.
        between: the same between the two targets; 0 for a single target.
        bytes: target to file size.
        float_bytes: size of the prefix's weights in float32.
        notes: layers that calibration shows to be dead, not covered by the examples, or ruled by outliers.
    """

    examples: int
    error: Mapping[str, float]
    between: float
    bytes: Mapping[str, int]
    float_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Int8Features:
    """`features` as int8 files, with the names and the batch of the float ones: they drop in for them.

    Attributes:
        onnx: the file, None where not asked for.
        tflite: the file and its names, None where not asked for.
    """

    onnx: bytes | None
    tflite: TFLiteModel | None
    report: FeaturesReport


def int8_features(
    bundle: Bundle, calibration: Calibration, targets: Sequence[str] = TARGETS
) -> Int8Features | None:
    """The bundle's `features` graph quantized; None for a bundle without one.

    Args:
        calibration: as for `export_int8`.

    Raises:
        CalibrationError: the examples are too few or unusable.
        ConversionError: an unknown target, or a quantizer refuses the graph.
    """
    check_targets(targets)
    if bundle.manifest.find("onnx", "features") is None:
        return None
    graph = read_onnx(bundle.artifact("onnx", "features"))
    examples = check_calibration(calibration, bundle.manifest.inputs)
    feeds = batches(examples, bundle.manifest.batch_size)
    onnx = int8_onnx(graph, feeds) if "onnx" in targets else None
    tflite = int8_tflite(graph, feeds, "features") if "tflite" in targets else None
    found = _results(graph, onnx, tflite, feeds)
    sizes = {"onnx": len(onnx or b""), "tflite": len(tflite.data) if tflite else 0}
    count = len(next(iter(examples.values())))
    report = _report(graph, found, {t: sizes[t] for t in targets}, feeds, count)
    return Int8Features(onnx, tflite, report)


def _results(
    graph: Graph, onnx: bytes | None, tflite: TFLiteModel | None, feeds: Sequence[Mapping[str, Array]]
) -> dict[str, Array]:
    """Every output of every batch as one vector, by target."""
    found = {}
    if onnx is not None:
        found["onnx"] = _flat(graph, run_onnx(onnx, feeds))
    if tflite is not None:
        found["tflite"] = _flat(graph, run_tflite(tflite, feeds))
    return found


def _flat(graph: Graph, results: Sequence[Mapping[str, Array]]) -> Array:
    return np.concatenate([result[name].ravel() for result in results for name in graph.outputs])


def _report(
    graph: Graph,
    found: Mapping[str, Array],
    sizes: Mapping[str, int],
    feeds: Sequence[Mapping[str, Array]],
    count: int,
) -> FeaturesReport:
    run = float_runner(graph)
    expected = _flat(graph, [run(feed) for feed in feeds])
    spread = float(expected.std()) or 1.0

    def distance(first: Array, second: Array) -> float:
        return float(np.sqrt(np.square(first - second).mean())) / spread

    values = list(found.values())
    return FeaturesReport(
        examples=count,
        error={target: distance(value, expected) for target, value in found.items()},
        between=distance(values[0], values[-1]),
        bytes=dict(sizes),
        float_bytes=sum(value.nbytes for value in graph.constants.values()),
        notes=findings(absorb(graph), feeds),
    )
