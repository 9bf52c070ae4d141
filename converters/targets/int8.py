# SPDX-License-Identifier: Apache-2.0
"""A bundle's model as int8 files for deployment, compared with the float model on the calibration data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.graft import bind
from edgefl.converters.targets.absorb import absorb
from edgefl.converters.targets.activations import findings, float_runner
from edgefl.converters.targets.calibration import Calibration, batches, check_calibration
from edgefl.converters.targets.quantize import TARGETS, check_targets, int8_onnx, int8_tflite
from edgefl.converters.targets.run import run_onnx, run_tflite
from edgefl.converters.targets.single import single
from edgefl.converters.targets.tflite import TFLiteModel
from edgefl.graph import Array, Graph, read_onnx

LARGE_ERROR = 0.1
"""Root mean square over the spread of the outputs from which on it is said: a tenth moves few classes."""


@dataclass(frozen=True)
class Int8Report:
    """How the int8 files compare with the float model, over `examples` calibration examples.

    Attributes:
        examples: number of examples compared.
        agreement: target to the fraction of outputs whose largest class is the float model's.
        between: the fraction in which all targets agree with one another; 1 for a single target.
        error: target to the root mean square error of the outputs over the float outputs' standard deviation.
        bytes: target to file size.
        float_bytes: size of the weights in float32.
        notes: errors that are large, and layers that calibration shows to be dead, not covered by the
            examples, or ruled by outliers.
    """

    examples: int
    agreement: Mapping[str, float]
    between: float
    error: Mapping[str, float]
    bytes: Mapping[str, int]
    float_bytes: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Int8Export:
    """Int8 files by target, and how they compare with the float model.

    Attributes:
        tflite: what is known about the TFLite file, None where not asked for.
    """

    files: Mapping[str, bytes]
    report: Int8Report
    tflite: TFLiteModel | None = None


def export_int8(bundle: Bundle, calibration: Calibration, targets: Sequence[str] = TARGETS) -> Int8Export:
    """The model with its present parameters as full-integer files, calibrated on examples.

    The files take one example at a time where the model allows it, else the bundle's batch. The parameters
    are inside; inputs and outputs are float32.

    Args:
        calibration: `[N, ...]`, or such arrays by input name, or a generator of batches of either; at least
            16 varied examples.

    Raises:
        CalibrationError: the examples are too few or unusable.
        ConversionError: an unknown target, or a quantizer refuses the model.
    """
    check_targets(targets)
    examples = check_calibration(calibration, bundle.manifest.inputs)
    graph = single(bind(read_onnx(bundle.artifact("onnx", "infer")), bundle.parameters()))
    return _export(graph, examples, targets)


def _export(graph: Graph, examples: Mapping[str, Array], targets: Sequence[str]) -> Int8Export:
    """Quantize and compare."""
    size = next(iter(graph.inputs.values())).shape[0]
    feeds = batches(examples, size)
    count = len(next(iter(examples.values())))
    files: dict[str, bytes] = {}
    results: dict[str, Array] = {}
    model: TFLiteModel | None = None
    if "onnx" in targets:
        files["onnx"] = int8_onnx(graph, feeds)
        results["onnx"] = _joined(run_onnx(files["onnx"], feeds))[:count]
    if "tflite" in targets:
        model = int8_tflite(graph, feeds)
        files["tflite"] = model.data
        results["tflite"] = _joined(run_tflite(model, feeds))[:count]
    run = float_runner(graph)
    expected = _joined([run(feed) for feed in feeds])[:count]
    report = _report(expected, results, files, graph)
    notes = (*large_errors(report.error), *findings(absorb(graph), feeds))
    return Int8Export(files, replace(report, notes=notes), model)


def large_errors(errors: Mapping[str, float]) -> list[str]:
    """A sentence for every target or engine whose outputs are far from the float model's."""
    return [
        f"on {where} outputs are {error:.0%} of their spread away from the float model's"
        for where, error in errors.items()
        if not error < LARGE_ERROR
    ]


def _report(
    expected: Array, results: Mapping[str, Array], files: Mapping[str, bytes], graph: Graph
) -> Int8Report:
    classes = {target: _class(value) for target, value in results.items()}
    first = next(iter(classes.values()))
    spread = float(expected.std()) or 1.0
    return Int8Report(
        examples=len(expected),
        agreement={target: float((found == _class(expected)).mean()) for target, found in classes.items()},
        between=float(np.logical_and.reduce([found == first for found in classes.values()]).mean()),
        error={t: float(np.sqrt(np.square(v - expected).mean())) / spread for t, v in results.items()},
        bytes={target: len(data) for target, data in files.items()},
        float_bytes=sum(value.nbytes for value in graph.constants.values()),
    )


def _class(output: Array) -> Array:
    """The largest class along the last axis; the sign for a single output."""
    return output.argmax(-1) if output.shape[-1] > 1 else output[..., 0] > 0


def _joined(results: Sequence[Mapping[str, Array]]) -> Array:
    """The only output of every batch, one after the other."""
    return np.concatenate([next(iter(result.values())) for result in results])
