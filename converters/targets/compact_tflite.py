# SPDX-License-Identifier: Apache-2.0
"""Weight-only storage in TFLite: rounded constants as int8 or int4 tensors, each with a DEQUANTIZE behind it.

The interpreters keep what DEQUANTIZE makes of a constant, so the work is done once. Int4 needs LiteRT; int8
with a scale per row also runs on tflite-runtime 2.14.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgefl.converters.targets.flatbuffer import operators
from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.tflite import TFLiteModel
from edgefl.converters.weights import Packed, packed
from edgefl.graph import Array

_INT8_VERSION, _INT4_VERSION = 5, 6
_INT8_RUNTIME, _INT4_RUNTIME = "2.7.0", "LiteRT 1.0"


def compact_tflite(lite: TFLiteModel, bits: int) -> TFLiteModel:
    """The same function with rounded constants stored in 8 or 4 bits; others stay as they are."""
    with quiet("absl", "tensorflow"):
        from tensorflow.lite.tools import flatbuffer_utils

        model = flatbuffer_utils.read_model_from_bytearray(bytearray(lite.data))
        found = {index: weight for index, value in _constants(model) if (weight := packed(value, bits))}
        if not found:
            return lite
        for index, weight in found.items():
            _replace(model, index, weight)
        _empty_unused(model)
        data = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    four = any(weight.bits == 4 for weight in found.values())
    counts = operators(data)
    return replace(
        lite,
        data=data,
        operators=counts,
        transposes=counts.get("TRANSPOSE", 0),
        min_runtime=_INT4_RUNTIME if four else _newer(lite.min_runtime, _INT8_RUNTIME),
    )


def _newer(first: str, second: str) -> str:
    """The later of two releases such as `2.9.0`."""
    return max(first, second, key=lambda text: [int(part) for part in text.split(".") if part.isdigit()])


def _constants(model: Any) -> list[tuple[int, Array]]:
    """Float32 tensors with data, by index."""
    from tensorflow.lite.python import schema_py_generated as schema

    constants = []
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data):
            value = np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
            constants.append((index, value))
    return constants


def _replace(model: Any, index: int, weight: Packed) -> None:
    """Make tensor `index` the output of operators, in front of all others, that unpack the weight."""
    tensor = model.subgraphs[0].tensors[index]
    tensor.buffer = 0
    source = _integers(model, index, weight)
    turned = weight.perm != tuple(range(len(weight.perm)))
    shaped = weight.levels.shape != weight.shape
    steps = [_dequantize(model, weight.bits)]
    if shaped:
        steps.append(_reshape(model, weight.shape))
    if turned:
        steps.append(_transpose(model, weight.perm))
    shapes = [weight.levels.shape, *([weight.shape] if shaped else []), tuple(tensor.shape)]
    current = source
    for place, (operator, more) in enumerate(steps):
        last = place == len(steps) - 1
        target = index if last else _add_tensor(model, f"t{index}_{place}", shapes[place], "FLOAT32")
        operator.inputs = np.array([current, *more], np.int32)
        operator.outputs = np.array([target], np.int32)
        current = target
    model.subgraphs[0].operators[:0] = [operator for operator, _ in steps]


def _empty_unused(model: Any) -> None:
    """Drop the data that no tensor and no metadata refers to any more."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _integers(model: Any, index: int, weight: Packed) -> int:
    from tensorflow.lite.python import schema_py_generated as schema

    kind = "INT8" if weight.bits == 8 else "INT4"
    data = weight.levels if weight.bits == 8 else _neighbours(weight.levels)
    made = _add_tensor(model, f"t{index}_int", weight.levels.shape, kind, data)
    quantization = schema.QuantizationParametersT()
    quantization.scale = weight.scale
    quantization.zeroPoint = np.zeros(len(weight.scale), np.int64)
    quantization.quantizedDimension = weight.axis
    model.subgraphs[0].tensors[made].quantization = quantization
    return made


def _neighbours(levels: Array) -> Array:
    """Four-bit integers in TFLite's order: neighbours share a byte, the first in its low half."""
    flat = levels.ravel()
    return ((flat[0::2] & 15) | ((flat[1::2] & 15) << 4)).astype(np.uint8)


def _add_tensor(model: Any, name: str, shape: tuple[int, ...], kind: str, data: Array | None = None) -> int:
    from tensorflow.lite.python import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape = name.encode(), np.array(shape, np.int32)
    tensor.type = getattr(schema.TensorType, kind)
    if data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    tensors = model.subgraphs[0].tensors
    tensors.append(tensor)
    return len(tensors) - 1


Step = tuple[Any, list[int]]
"""An operator without its tensors, and the inputs it takes behind the first."""


def _dequantize(model: Any, bits: int) -> Step:
    from tensorflow.lite.python import schema_py_generated as schema

    operator = _operator(model, "DEQUANTIZE", _INT8_VERSION if bits == 8 else _INT4_VERSION)
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator, []


def _reshape(model: Any, shape: tuple[int, ...]) -> Step:
    from tensorflow.lite.python import schema_py_generated as schema

    operator = _operator(model, "RESHAPE", 1)
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = np.array(shape, np.int32)
    target = _add_tensor(model, "shape", (len(shape),), "INT32", np.array(shape, np.int32))
    return operator, [target]


def _transpose(model: Any, perm: tuple[int, ...]) -> Step:
    from tensorflow.lite.python import schema_py_generated as schema

    operator = _operator(model, "TRANSPOSE", 1)
    operator.builtinOptionsType = schema.BuiltinOptions.TransposeOptions
    operator.builtinOptions = schema.TransposeOptionsT()
    axes = _add_tensor(model, "perm", (len(perm),), "INT32", np.array(perm, np.int32))
    return operator, [axes]


def _operator(model: Any, name: str, version: int) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    builtin = getattr(schema.BuiltinOperator, name)
    code = schema.OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, 127)
    code.version = version
    model.operatorCodes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    return operator
