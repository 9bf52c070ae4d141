# SPDX-License-Identifier: Apache-2.0
"""A float graph with its weights inside, quantized to integers by TensorFlow and by onnxruntime.

Both use the same examples: weights symmetric per output channel in int8, activations asymmetric in int8 over
the range seen, biases in int32. Inputs and outputs stay float32, so the files drop in for the float ones,
unless int8 is asked for there too (`int8_border`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.converters.targets.absorb import absorb
from edgefl.converters.targets.flatbuffer import finish
from edgefl.converters.targets.int8_border import Ranges, int8_border_tflite
from edgefl.converters.targets.integers import (
    KEPT_IN_FLOAT,
    is_risky,
    shallow_masks,
    without_erf,
    without_where,
)
from edgefl.converters.targets.onnx import to_onnx
from edgefl.converters.targets.pads import finite_pads
from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.refusal import refusal
from edgefl.converters.targets.tflite import TFLiteModel, convert, described, import_tensorflow, safe_names
from edgefl.errors import ConversionError, MissingDependency
from edgefl.graph import Array, Graph

TARGETS = ("onnx", "tflite")

Batches = Sequence[Mapping[str, Array]]


def check_targets(targets: Sequence[str]) -> None:
    """Raises ConversionError unless there is a quantizer for each target, and one at least."""
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown or not targets:
        raise ConversionError(f"int8 targets {unknown or list(targets)}; there are {', '.join(TARGETS)}")


def int8_tflite(
    graph: Graph, calibration: Batches, signature: str = "infer", border: Ranges | None = None
) -> TFLiteModel:
    """Quantize by TFLiteConverter after training.

    Args:
        graph: float, its parameters constants.
        calibration: feeds of the graph.
        border: ranges of inputs and outputs, which become int8 too; float32 where None.

    Raises:
        ConversionError, UnsupportedOperator: as for `to_tflite`.
    """
    with quiet("absl", "tensorflow"):
        tf = import_tensorflow()
        from edgefl.converters.targets.lowering import trace

        inputs, outputs = safe_names(graph.inputs), safe_names(graph.outputs)
        function = trace(absorb(_tamed(graph, calibration)), inputs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([feed[name] for name in inputs] for feed in calibration)
        # Operators without an integer kernel stay in float rather than stop the export; they are counted.
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ]
        data = _partly_float(tf, converter) if is_risky(graph) else convert(converter)
        change = None
        if border is not None:
            change = partial(int8_border_tflite, inputs=list(inputs), outputs=list(outputs), ranges=border)
        done = finish(data, signature, inputs, outputs, change)
    return described(done, signature, inputs, outputs)


def _tamed(graph: Graph, calibration: Batches) -> Graph:
    """The graph without what TensorFlow's quantizer or eight bits cannot deal with."""
    return finite_pads(without_where(shallow_masks(without_erf(graph))), calibration)


def _partly_float(tf: Any, converter: Any) -> bytes:
    """Quantize all but the operators that eight bits cannot carry."""
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(KEPT_IN_FLOAT))
    try:
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
        )
        return bytes(debugger.get_nondebug_quantized_model())
    except Exception as exc:  # the quantizer's exceptions share no base class
        raise refusal(exc) from exc


def int8_onnx(graph: Graph, calibration: Batches) -> bytes:
    """Quantize by onnxruntime after training: standard operators between QuantizeLinear and DequantizeLinear.

    Raises:
        ConversionError: onnxruntime's quantizer refuses the graph.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    with quiet("root"), tempfile.TemporaryDirectory() as folder:
        try:
            from onnxruntime import quantization
        except ImportError as exc:
            raise MissingDependency(
                (exc.name or "onnxruntime").partition(".")[0], "", "the int8 ONNX export"
            ) from exc
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(to_onnx(absorb(shallow_masks(graph))))
        try:
            quantization.quantize_static(
                str(source),
                str(target),
                _reader(quantization.CalibrationDataReader, calibration),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as exc:  # the quantizer's exceptions share no base class
            raise ConversionError(f"onnxruntime cannot quantize graph {graph.name!r}: {exc}") from exc
        return target.read_bytes()


def _reader(base: Any, calibration: Batches) -> Any:
    class Reader(base):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[Mapping[str, Array]] = iter(calibration)

        def get_next(self) -> dict[str, Array] | None:
            feed = next(self._feeds, None)
            return None if feed is None else {name: np.ascontiguousarray(v) for name, v in feed.items()}

    return Reader()
