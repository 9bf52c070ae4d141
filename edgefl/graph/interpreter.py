# SPDX-License-Identifier: Apache-2.0
"""Running a graph with NumPy, node by node, freeing each tensor after its last reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgefl.errors import BackendFailure, DataShape, DataType, UnsupportedOperator
from edgefl.graph.kernels import FULL_KERNELS, KERNELS
from edgefl.graph.model import Array, Graph, Node


def execute(node: Node, values: Mapping[str, Array]) -> tuple[Array, ...]:
    """Outputs of one node; raises UnsupportedOperator or BackendFailure naming the node."""
    kernel = FULL_KERNELS.get(node.op) if len(node.outputs) > 1 else None
    kernel = kernel or KERNELS.get(node.op)
    if kernel is None:
        raise UnsupportedOperator(f"node {node}: there is no NumPy kernel for this operator")
    inputs = [values[name] if name else None for name in node.inputs]
    try:
        results = kernel(inputs, node.attributes)
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError, MemoryError) as exc:
        shapes = ", ".join(f"{n}{list(values[n].shape)}" if n else "-" for n in node.inputs)
        raise BackendFailure(f"node {node} failed on inputs {shapes}: {exc}") from exc
    if len(results) < len(node.outputs):
        raise UnsupportedOperator(
            f"node {node} asks for {len(node.outputs)} outputs, the kernel makes {len(results)}"
        )
    return results


class Interpreter:
    """A graph made ready to run many times."""

    def __init__(self, graph: Graph) -> None:
        missing = sorted({node.op for node in graph} - set(KERNELS))
        if missing:
            raise UnsupportedOperator(f"graph {graph.name!r} has operators without a NumPy kernel: {missing}")
        self.graph = graph
        rest = settled(graph)
        self._constants, self._nodes = rest.constants, _ends_early(rest)
        self._dead_after = _last_uses(graph, self._nodes)

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name. Feeds must have exactly the graph's inputs, dtypes and shapes."""
        self._check(feeds)
        values: dict[str, Array] = {**self._constants, **feeds}
        with np.errstate(all="ignore"):
            for i, node in enumerate(self._nodes):
                values.update(zip(node.outputs, execute(node, values), strict=False))
                for name in self._dead_after[i]:
                    values.pop(name, None)
        return {name: np.asarray(values[name], order="C") for name in self.graph.outputs}

    def _check(self, feeds: Mapping[str, Array]) -> None:
        if set(feeds) != set(self.graph.inputs):
            raise DataShape(f"graph inputs are {sorted(self.graph.inputs)}, given {sorted(feeds)}")
        for name, expected in self.graph.inputs.items():
            if tuple(feeds[name].shape) != expected.shape:
                raise DataShape(f"input {name!r} has shape {feeds[name].shape}, expected {expected.shape}")
            if feeds[name].dtype != expected.dtype:
                raise DataType(f"input {name!r} has dtype {feeds[name].dtype}, expected {expected.dtype}")


def run(graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a graph once."""
    return Interpreter(graph)(feeds)


def settled(graph: Graph) -> Graph:
    """The same function with what nodes make of constants alone computed; itself where none does."""
    known = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph:
        if node.inputs and all(not name or name in known for name in node.inputs):
            with np.errstate(all="ignore"):
                known.update(zip(node.outputs, map(np.asarray, execute(node, known)), strict=False))
        else:
            nodes.append(node)
    if len(nodes) == len(graph.nodes):
        return graph
    used = {name for node in nodes for name in node.inputs} | set(graph.outputs)
    return replace(graph, nodes=tuple(nodes), constants={n: v for n, v in known.items() if n in used})


def _ends_early(graph: Graph) -> list[Node]:
    """The nodes, each that no other reads as soon as its inputs are there, which then may go."""
    read = {name for node in graph for name in node.inputs}
    made = {name: place for place, node in enumerate(graph) for name in node.outputs if name}

    def place(item: tuple[int, Node]) -> int:
        own, node = item
        return (
            own
            if not read.isdisjoint(node.outputs)
            else max((made.get(n, -1) for n in node.inputs), default=-1)
        )

    return [node for _, node in sorted(enumerate(graph), key=place)]


def _last_uses(graph: Graph, nodes: Sequence[Node]) -> list[list[str]]:
    """For each node the tensors no later node and no output needs."""
    last: dict[str, int] = {}
    for i, node in enumerate(nodes):
        last.update(dict.fromkeys((*node.inputs, *node.outputs), i))
    dead: list[list[str]] = [[] for _ in nodes]
    for name, i in last.items():
        if name and name not in graph.outputs:
            dead[i].append(name)
    return dead
