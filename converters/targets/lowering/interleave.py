# SPDX-License-Identifier: Apache-2.0
"""Interleaving written with matrices, as differentiation does for the gradients of strided reads, as a stack.

`[a0, b0, a1, b1, ...]` along an axis is a join along a new axis behind it. Written with matrices it merges
all axes before, which holds only in logical order and would cost a transpose of every channel-last operand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgefl.graph import Array, Graph, Node, TensorType

Shape = tuple[int, ...]


def stacked(graph: Graph) -> Graph:
    """The same function with every interleaving as reshapes and a join that keep each tensor's axes apart."""
    producers = graph.producers()
    constants, types = dict(graph.constants), dict(graph.types)
    nodes: list[Node] = []
    for node in graph:
        found = _match(graph, producers, node)
        nodes += [node] if found is None else _stack(graph, node, *found, constants, types)
    return replace(graph, nodes=tuple(nodes), constants=constants, types=types)


def _match(graph: Graph, producers: Mapping[str, Node], last: Node) -> tuple[list[str], int] | None:
    """The tensors that a Reshape interleaves, and the axis; None if it does something else."""
    if last.op != "Reshape":
        return None
    before = producers.get(last.inputs[0])
    turned = before is not None and before.op == "Transpose" and before.attributes.get("perm") == (1, 0)
    joined = producers.get(before.inputs[0]) if before is not None and turned else before
    if joined is None or joined.op != "Concat":
        return None
    sources = [_source(graph, producers, name) for name in joined.inputs]
    shapes = {graph.type_of(name).shape for name in sources if name and name not in graph.constants}
    if not all(sources) or len(shapes) != 1:
        return None
    matrix = graph.type_of(joined.inputs[0]).shape
    axis = _axis(next(iter(shapes)), matrix, graph.type_of(last.outputs[0]).shape, len(sources))
    expected = 0 if turned else 1
    if axis is None or joined.attributes.get("axis") != expected or (turned and matrix[0] != 1):
        return None
    return sources, axis


def _source(graph: Graph, producers: Mapping[str, Node], matrix: str) -> str:
    """What a matrix was made of by a Reshape; a constant matrix stands for itself; empty otherwise."""
    if matrix in graph.constants:
        return matrix
    node = producers.get(matrix)
    return node.inputs[0] if node is not None and node.op == "Reshape" else ""


def _axis(source: Shape, matrix: Shape, result: Shape, count: int) -> int | None:
    """The axis along which matrices of this shape, made of the sources, are interleaved into the result."""
    for axis, length in enumerate(source):
        rows, rest = int(np.prod(source[: axis + 1])), int(np.prod(source[axis + 1 :]))
        merged = (*source[:axis], length * count, *source[axis + 1 :])
        if merged == result and matrix in ((rows, rest), (1, rows) if rest == 1 else ()):
            return axis
    return None


def _stack(
    graph: Graph,
    last: Node,
    sources: list[str],
    axis: int,
    constants: dict[str, Array],
    types: dict[str, TensorType],
) -> list[Node]:
    type = next(graph.type_of(name) for name in sources if name not in graph.constants)
    out = last.outputs[0]
    thin = (*type.shape[: axis + 1], 1, *type.shape[axis + 1 :])
    full = (*type.shape[: axis + 1], len(sources), *type.shape[axis + 1 :])
    constants[f"{out}/thin"] = np.array(thin, np.int64)
    parts = [f"{out}/part{i}" for i in range(len(sources))]
    types.update(dict.fromkeys(parts, TensorType(type.dtype, thin)))
    types[f"{out}/stack"] = TensorType(type.dtype, full)
    return [
        *(Node("Reshape", (s, f"{out}/thin"), (p,)) for s, p in zip(sources, parts, strict=True)),
        Node("Concat", tuple(parts), (f"{out}/stack",), {"axis": axis + 1}),
        Node("Reshape", (f"{out}/stack", last.inputs[1]), (out,), {}, last.name),
    ]
