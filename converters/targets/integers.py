# SPDX-License-Identifier: Apache-2.0
"""Operators that eight bits cannot carry: what stays in float in TFLite, and a milder error function."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgefl.graph import Array, Graph, Node, TensorType

KEPT_IN_FLOAT = ("DIV", "EXP", "LOG", "POW", "RSQRT", "SQRT", "SQUARE", "SQUARED_DIFFERENCE")
"""TFLite operators whose operands span many magnitudes: a divisor rounded to zero stops the interpreter."""

_RISKY = frozenset({"Div", "Reciprocal", "Exp", "Log", "Pow", "Sqrt", "Softplus", "Erf"})
_LINEAR, _CUBIC = 1.1283791671, 0.1009120


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
