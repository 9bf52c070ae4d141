# SPDX-License-Identifier: Apache-2.0
"""Int8 files whose inputs and outputs are int8 too, for NPUs and microcontrollers without floats.

A quantized file begins by rounding its inputs and ends by widening its outputs. Both operators go, and what
was between them and the rest becomes the border; a border the quantizer left in float gets the rounding of
the range seen in calibration. Who feeds the file does the rounding: `q = round(x / scale) + zero_point`, cut
to -128 and 127.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.converters.targets.flatbuffer_edit import Editor
from edgefl.graph import Array

METADATA = "edgefl.quantization"
"""Key of the ONNX file's metadata that holds scales and zero points by name, as JSON."""

Ranges = Mapping[str, tuple[float, float]]
"""Lowest and highest value seen, by contract name of a float input or output."""


@dataclass(frozen=True)
class Rounding:
    """How int8 stands for numbers: `value = scale * (q - zero_point)`."""

    scale: float
    zero_point: int

    @staticmethod
    def of(low: float, high: float) -> Rounding:
        """The rounding of a range, zero among its values."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = float(np.float32((high - low) / 255 or 1.0))
        return Rounding(scale, int(np.clip(round(-128 - low / scale), -128, 127)))

    def round(self, value: Array) -> Array:
        """Float32 as int8, the nearest value."""
        made: Array = np.clip(np.rint(value / np.float32(self.scale)) + self.zero_point, -128, 127)
        return made.astype(np.int8)

    def widen(self, value: Array) -> Array:
        """Int8 as float32."""
        wide: Array = (value.astype(np.float32) - self.zero_point) * np.float32(self.scale)
        return wide


def ranges_of(feeds: Sequence[Mapping[str, Array]], results: Sequence[Mapping[str, Array]]) -> Ranges:
    """Ranges of what went in and what came out."""
    found: dict[str, tuple[float, float]] = {}
    for row in (*feeds, *results):
        for name, value in row.items():
            if value.dtype.kind == "f":
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found


# -- TFLite


def int8_border_tflite(model: Any, inputs: Sequence[str], outputs: Sequence[str], ranges: Ranges) -> None:
    """Make the float inputs and outputs of a model with one subgraph int8.

    Args:
        model: the object tree of its schema.
        inputs, outputs: contract names in the subgraph's order.
    """
    editor = Editor(model)
    graph = editor.graph
    for names, border, change in ((inputs, graph.inputs, _entry), (outputs, graph.outputs, _exit)):
        for place, name in enumerate(names):
            if editor.is_float(tensor := int(border[place])):
                border[place] = change(editor, tensor, ranges[name])


def rounding_of(tensor: Any) -> Rounding | None:
    """How a tensor of the schema is quantized; None for one that is not int8."""
    from tensorflow.lite.python import schema_py_generated as schema

    if tensor.type != schema.TensorType.INT8:
        return None
    made = tensor.quantization
    return Rounding(float(made.scale[0]), int(made.zeroPoint[0]))


def _entry(editor: Editor, tensor: int, seen: tuple[float, float]) -> int:
    """The int8 tensor that takes the place of an input."""
    readers = [o for o in editor.operators if tensor in list(o.inputs)]
    roundings = editor.codes("QUANTIZE")
    if len(readers) == 1 and readers[0].opcodeIndex in roundings and editor.is_int8(readers[0].outputs[0]):
        editor.operators.remove(readers[0])
        return int(readers[0].outputs[0])
    fresh = _int8_tensor(editor, tensor, "rounded", Rounding.of(*seen))
    operator = editor.dequantize(2)
    operator.inputs, operator.outputs = [fresh], [tensor]
    editor.operators.insert(0, operator)
    return fresh


def _exit(editor: Editor, tensor: int, seen: tuple[float, float]) -> int:
    """The int8 tensor that takes the place of an output."""
    maker = next((o for o in editor.operators if tensor in list(o.outputs)), None)
    read = any(tensor in list(o.inputs) for o in editor.operators)
    if (
        maker
        and not read
        and maker.opcodeIndex in editor.codes("DEQUANTIZE")
        and editor.is_int8(maker.inputs[0])
    ):
        editor.operators.remove(maker)
        return int(maker.inputs[0])
    fresh = _int8_tensor(editor, tensor, "out", Rounding.of(*seen))
    operator = editor.unary("QUANTIZE")
    operator.inputs, operator.outputs = [tensor], [fresh]
    editor.operators.append(operator)
    return fresh


def _int8_tensor(editor: Editor, like: int, name: str, rounding: Rounding) -> int:
    fresh = editor.tensor(f"t{like}_{name}", editor.shape(like), "INT8")
    editor.quantize(fresh, np.array([rounding.scale], np.float32), 0, rounding.zero_point)
    return fresh


# -- ONNX


def int8_border_onnx(data: bytes, ranges: Ranges) -> tuple[bytes, dict[str, Rounding]]:
    """An ONNX file in QDQ form with int8 inputs and outputs, and the rounding of each by name."""
    import onnx

    model = onnx.load_from_string(data)
    graph = model.graph
    known = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    found: dict[str, Rounding] = {}
    for border, change in ((graph.input, _onnx_entry), (graph.output, _onnx_exit)):
        for value in border:
            if value.name not in known and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                found[value.name] = change(onnx, graph, value.name, known, ranges[value.name])
                value.type.tensor_type.elem_type = onnx.TensorProto.INT8
    del graph.value_info[:]
    text = json.dumps({n: {"scale": r.scale, "zero_point": r.zero_point} for n, r in found.items()})
    model.metadata_props.add(key=METADATA, value=text)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True), found


def _onnx_entry(
    onnx: Any, graph: Any, name: str, known: Mapping[str, Array], seen: tuple[float, float]
) -> Rounding:
    readers = [node for node in graph.node if name in node.input]
    roundings = {_rounding(node, known) for node in readers}
    if len(roundings) == 1 and (rounding := roundings.pop()) and all(_rounds(node) for node in readers):
        for node in readers:
            _renamed(graph, node.output[0], name)
            graph.node.remove(node)
        return rounding
    rounding = Rounding.of(*seen)
    _renamed(graph, name, f"{name}/float")
    node = _onnx_node(onnx, graph, "DequantizeLinear", name, f"{name}/float", rounding)
    graph.node.insert(0, node)
    return rounding


def _onnx_exit(
    onnx: Any, graph: Any, name: str, known: Mapping[str, Array], seen: tuple[float, float]
) -> Rounding:
    maker = next(node for node in graph.node if name in node.output)
    read = any(name in node.input for node in graph.node)
    rounding = _rounding(maker, known)
    inner = maker.input[0]
    if maker.op_type == "DequantizeLinear" and rounding and not read and inner not in known:
        graph.node.remove(maker)
        _renamed(graph, inner, name)
        return rounding
    rounding = Rounding.of(*seen)
    _renamed(graph, name, f"{name}/float")
    graph.node.append(_onnx_node(onnx, graph, "QuantizeLinear", f"{name}/float", name, rounding))
    return rounding


def _rounds(node: Any) -> bool:
    return bool(node.op_type == "QuantizeLinear")


def _rounding(node: Any, known: Mapping[str, Array]) -> Rounding | None:
    """The rounding of a whole tensor by one scale; None for any other node."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
        return None
    scale, zero = known.get(node.input[1]), known.get(node.input[2])
    if scale is None or zero is None or scale.size != 1 or zero.dtype != np.int8:
        return None
    return Rounding(float(scale.item()), int(zero.item()))


def _renamed(graph: Any, old: str, new: str) -> None:
    """A tensor by another name, wherever nodes read or make it."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def _onnx_node(onnx: Any, graph: Any, op: str, source: str, made: str, rounding: Rounding) -> Any:
    scale, zero = f"{made}/{op}/scale", f"{made}/{op}/zero_point"
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(rounding.scale, np.float32), scale))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(rounding.zero_point, np.int8), zero))
    return onnx.helper.make_node(op, [source, scale, zero], [made], name=f"{made}/{op}")
