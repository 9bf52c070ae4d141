# SPDX-License-Identifier: Apache-2.0
"""Weights stored in float16, half the bytes, and widened to float32 by a standard operator when read.

Weights are rounded once, before any file is written, as with fewer bits (see `edgefl.converters.weights`):
every file has the same float32 values, and what runs it decides whether the arithmetic is in float16 too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgefl.converters.targets.compact_tflite import constants, drop_unused
from edgefl.converters.targets.flatbuffer import operators, write_model
from edgefl.converters.targets.flatbuffer_edit import Editor
from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.tflite import TFLiteModel, later_release
from edgefl.converters.weights import MIN_SIZE
from edgefl.graph import Array, Graph, Node, TensorType

_FLOAT32 = 1  # ONNX's number
_DEQUANTIZE, _RUNTIME = 3, "2.2.0"


def round_to_half(graph: Graph) -> Graph:
    """The graph with its large constants rounded to float16's values; those beyond its range stay."""
    return replace(graph, constants={name: _rounded(value) for name, value in graph.constants.items()})


def half_onnx(graph: Graph) -> Graph:
    """The same function with large constants that float16 holds exactly stored so, a Cast behind each."""
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    types = dict(graph.types)
    for name, value in graph.constants.items():
        if not _is_half(value):
            constants[name] = value
            continue
        stored = f"{name}/half"
        constants[stored] = value.astype(np.float16)
        types[stored], types[name] = TensorType.of(constants[stored]), TensorType.of(value)
        nodes.append(Node("Cast", (stored,), (name,), {"to": _FLOAT32}))
    return replace(graph, nodes=(*nodes, *graph.nodes), constants=constants, types=types)


def half_tflite(lite: TFLiteModel) -> TFLiteModel:
    """The same function with large constants that float16 holds exactly stored so, each with a DEQUANTIZE."""
    with quiet("absl", "tensorflow"):
        from tensorflow.lite.tools import flatbuffer_utils

        model = flatbuffer_utils.read_model_from_bytearray(bytearray(lite.data))
        found = [(index, value) for index, value in constants(model) if _is_half(value)]
        if not found:
            return lite
        editor = Editor(model)
        first = []
        for index, value in found:
            editor.graph.tensors[index].buffer = 0
            operator = editor.dequantize(_DEQUANTIZE)
            half = value.astype(np.float16)
            operator.inputs = [editor.tensor(f"t{index}_half", value.shape, "FLOAT16", half)]
            operator.outputs = [index]
            first.append(operator)
        editor.operators[:0] = first
        drop_unused(model)
        data = write_model(model)
    release = later_release(lite.min_runtime, _RUNTIME)
    newest = lite.newest if release == lite.min_runtime else f"DEQUANTIZE {_DEQUANTIZE}"
    return replace(lite, data=data, operators=operators(data), min_runtime=release, newest=newest)


def _rounded(value: Array) -> Array:
    if not _is_large(value):
        return value
    with np.errstate(over="ignore"):
        half = value.astype(np.float16).astype(np.float32)
    return half if np.isfinite(half).all() else value


def _is_half(value: Array) -> bool:
    if not _is_large(value):
        return False
    with np.errstate(over="ignore"):
        return np.array_equal(value.astype(np.float16).astype(np.float32), value)


def _is_large(value: Array) -> bool:
    return value.dtype == np.float32 and value.size >= MIN_SIZE
