# SPDX-License-Identifier: Apache-2.0
"""Weight-only storage in TFLite: rounded constants as int8 or int4 tensors, each with a DEQUANTIZE behind it.

The interpreters keep what DEQUANTIZE makes of a constant, so the work is done once. Int4 needs LiteRT; int8
with a scale per row also runs on tflite-runtime 2.14.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgefl.converters.targets.flatbuffer import operators, write_model
from edgefl.converters.targets.flatbuffer_edit import Editor
from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.tflite import TFLiteModel, later_release
from edgefl.converters.weights import Packed, packed
from edgefl.graph import Array

_INT8_VERSION, _INT4_VERSION = 5, 6
_INT8_RUNTIME, _INT4_RUNTIME = "2.7.0", "LiteRT 1.0"


def compact_tflite(lite: TFLiteModel, bits: int) -> TFLiteModel:
    """The same function with rounded constants stored in 8 or 4 bits; others stay as they are."""
    with quiet("absl", "tensorflow"):
        from tensorflow.lite.tools import flatbuffer_utils

        model = flatbuffer_utils.read_model_from_bytearray(bytearray(lite.data))
        found = {index: weight for index, value in constants(model) if (weight := packed(value, bits))}
        if not found:
            return lite
        editor = Editor(model)
        for index, weight in found.items():
            _replace(editor, index, weight)
        drop_unused(model)
        data = write_model(model)
    counts = operators(data)
    release, newest = _newest(lite, four=any(weight.bits == 4 for weight in found.values()))
    return replace(
        lite,
        data=data,
        operators=counts,
        transposes=counts.get("TRANSPOSE", 0),
        min_runtime=release,
        newest=newest,
    )


def _newest(lite: TFLiteModel, four: bool) -> tuple[str, str]:
    """The release the file needs now, and the operator that asks for it."""
    if four:
        return _INT4_RUNTIME, f"DEQUANTIZE {_INT4_VERSION}"
    if later_release(lite.min_runtime, _INT8_RUNTIME) == lite.min_runtime:
        return lite.min_runtime, lite.newest
    return _INT8_RUNTIME, f"DEQUANTIZE {_INT8_VERSION}"


def constants(model: Any) -> list[tuple[int, Array]]:
    """Float32 tensors with data, by index."""
    from tensorflow.lite.python import schema_py_generated as schema

    found = []
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.FLOAT32 and data is not None and len(data):
            value = np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
            found.append((index, value))
    return found


def _replace(editor: Editor, index: int, weight: Packed) -> None:
    """Make tensor `index` the output of operators, in front of all others, that unpack the weight."""
    editor.graph.tensors[index].buffer = 0
    kind = "INT8" if weight.bits == 8 else "INT4"
    stored = weight.levels if weight.bits == 8 else _neighbours(weight.levels)
    current = editor.tensor(f"t{index}_int", weight.levels.shape, kind, stored)
    editor.quantize(current, weight.scale, weight.axis)
    steps = [(editor.dequantize(_INT8_VERSION if weight.bits == 8 else _INT4_VERSION), weight.levels.shape)]
    if weight.levels.shape != weight.shape:
        steps.append((editor.reshape(weight.shape), weight.shape))
    if weight.perm != tuple(range(len(weight.perm))):
        steps.append((editor.transpose(weight.perm), tuple(editor.graph.tensors[index].shape)))
    for place, (operator, shape) in enumerate(steps):
        last = place == len(steps) - 1
        target = index if last else editor.tensor(f"t{index}_{place}", shape, "FLOAT32")
        operator.inputs, operator.outputs = [current, *operator.inputs], [target]
        current = target
    editor.operators[:0] = [operator for operator, _ in steps]


def drop_unused(model: Any) -> None:
    """Drop the data that no tensor and no metadata refers to any more."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _neighbours(levels: Array) -> Array:
    """Four-bit integers in TFLite's order: neighbours share a byte, the first in its low half."""
    flat = levels.ravel()
    return ((flat[0::2] & 15) | ((flat[1::2] & 15) << 4)).astype(np.uint8)
