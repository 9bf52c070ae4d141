# SPDX-License-Identifier: Apache-2.0
"""What eight bits cannot carry: wide operators, error functions, choices between floats, and deep masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgefl.graph import Array, Graph, Node, TensorType

KEPT_IN_FLOAT = ("DIV", "EXP", "LOG", "POW", "RSQRT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE")
"""TFLite operators whose operands span many magnitudes: a divisor rounded to zero stops the interpreter."""

_RISKY = frozenset({"Div", "Reciprocal", "Exp", "Log", "Pow", "Sqrt", "Softplus", "Erf"})
_FLOAT = {2: 10, 4: 1, 8: 11}  # ONNX's numbers for float16, float32 and float64
_LINEAR, _CUBIC = 1.1283791671, 0.1009120
_DEEP, _SHALLOW = -1e3, -16.0  # the exponential of the latter is 1e-7; eight bits of a softmax end at 4e-3
_CARRIERS = frozenset(
    {"Add", "Sub", "Mul", "Where", "Min", "Max", "Cast", "Identity"}
    | {"Expand", "Reshape", "Transpose", "Concat", "Slice"}
)


def is_risky(graph: Graph) -> bool:
    """Whether a graph has operators that must stay in float."""
    return any(node.op in _RISKY for node in graph)


def without_erf(graph: Graph) -> Graph:
    """Each Erf as tanh(1.128 x + 0.101 x^3), within 4e-4: below what eight bits tell apart.

    The rational form used in float divides numbers of very different magnitudes.
    """
    constants: dict[str, Array] = dict(graph.constants)
    types = dict(graph.types)
    nodes: list[Node] = []
    for node in graph:
        nodes += _tanh_of(node, graph, constants, types) if node.op == "Erf" else [node]
    return replace(graph, nodes=tuple(nodes), constants=constants, types=types)


def _tanh_of(
    node: Node, graph: Graph, constants: dict[str, Array], types: dict[str, TensorType]
) -> list[Node]:
    x, y = node.inputs[0], node.outputs[0]
    type = graph.type_of(x)
    for name, value in ((f"{y}/linear", _LINEAR), (f"{y}/cubic", _CUBIC)):
        constants[name] = np.array(value, type.dtype)
    steps = [f"{y}/{step}" for step in ("square", "curved", "slope", "inner")]
    types.update(dict.fromkeys(steps, type))
    square, curved, slope, inner = steps
    return [
        Node("Mul", (x, x), (square,)),
        Node("Mul", (square, f"{y}/cubic"), (curved,)),
        Node("Add", (curved, f"{y}/linear"), (slope,)),
        Node("Mul", (slope, x), (inner,)),
        Node("Tanh", (inner,), (y,), {}, node.name),
    ]


def without_where(graph: Graph) -> Graph:
    """Each choice between two computed floats as `b + c (a - b)`.

    TensorFlow quantizes what SELECT reads with scales of their own, and SELECT copies integers as they are.
    A constant takes the scale of the other side; as a sum it would stop tflite-runtime 2.14.
    """
    types = dict(graph.types)
    nodes: list[Node] = []
    for node in graph:
        nodes += _weighed(node, graph, types) if _chooses(node, graph) else [node]
    return replace(graph, nodes=tuple(nodes), types=types)


def _chooses(node: Node, graph: Graph) -> bool:
    """Whether a node chooses between two computed floats that are not one and the same."""
    if node.op != "Where" or graph.type_of(node.outputs[0]).dtype.kind != "f":
        return False
    same = {name: one.inputs[0] for one in graph if one.op == "Identity" for name in one.outputs}
    first, second = (same.get(name, name) for name in node.inputs[1:])
    return first != second and graph.constants.keys().isdisjoint((first, second))


def _weighed(node: Node, graph: Graph, types: dict[str, TensorType]) -> list[Node]:
    (condition, first, second), y = node.inputs, node.outputs[0]
    shapes = {name: graph.type_of(name).shape for name in (condition, first, second)}
    dtype = graph.type_of(y).dtype
    share, apart, moved = f"{y}/share", f"{y}/apart", f"{y}/moved"
    types[share] = TensorType(dtype, shapes[condition])
    types[apart] = TensorType(dtype, np.broadcast_shapes(shapes[first], shapes[second]))
    types[moved] = TensorType(dtype, np.broadcast_shapes(types[share].shape, types[apart].shape))
    return [
        Node("Cast", (condition,), (share,), {"to": _FLOAT[dtype.itemsize]}),
        Node("Sub", (first, second), (apart,)),
        Node("Mul", (share, apart), (moved,)),
        Node("Add", (second, moved), (y,), {}, node.name),
    ]


def shallow_masks(graph: Graph) -> Graph:
    """The graph with numbers that stand for minus infinity before a Softmax set to -16.

    With the lowest float among them a tensor's 256 steps are so long that nothing else is left of it, and
    interpreters stop where they turn such a step into an integer multiplier.
    """
    readers = graph.consumers()
    constants = {
        name: np.maximum(value, np.array(_SHALLOW, value.dtype)) if _is_mask(readers, name, value) else value
        for name, value in graph.constants.items()
    }
    return replace(graph, constants=constants)


def _is_mask(readers: Mapping[str, list[Node]], name: str, value: Array) -> bool:
    deep = value.dtype.kind == "f" and value.size > 0 and bool((value < _DEEP).any())
    return deep and _reaches_softmax(readers, name)


def _reaches_softmax(readers: Mapping[str, list[Node]], name: str) -> bool:
    """Whether a tensor arrives at a Softmax through operators that only combine and move it."""
    seen, waiting = {name}, [name]
    while waiting:
        for node in readers.get(waiting.pop(), []):
            if node.op in ("Softmax", "LogSoftmax"):
                return True
            if node.op in _CARRIERS and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return False
