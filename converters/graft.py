# SPDX-License-Identifier: Apache-2.0
"""Adding (a part of) a graph to a builder."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgefl.converters.builder import GraphBuilder
from edgefl.errors import DataShape
from edgefl.graph.model import Array, Graph, Node, TensorType


def graft(
    builder: GraphBuilder, graph: Graph, bound: Mapping[str, str], wanted: Collection[str]
) -> dict[str, str]:
    """Add the nodes of a graph that the wanted tensors need.

    Args:
        builder: receives the nodes; constants fold and equal nodes are shared as usual.
        graph: what is added.
        bound: tensors of the graph that the builder has already, by the builder's name. Nothing
            upstream of them is added.
        wanted: tensors of the graph.

    Returns:
        The builder's name of every bound or added tensor of the graph.
    """
    tensors = dict(bound)
    needed = required(graph, wanted, bound)
    used = {t for node in needed for t in node.inputs} | set(wanted)
    for name, value in graph.constants.items():
        if name in used and name not in tensors:
            tensors[name] = builder.constant(value)
    for node in needed:
        inputs = [tensors[t] if t else "" for t in node.inputs]
        count = len(node.outputs)
        made = builder.add(node.op, *inputs, outputs=count, name=node.name, **node.attributes)
        tensors.update(zip(node.outputs, (made,) if isinstance(made, str) else made, strict=True))
    return tensors


def required(graph: Graph, wanted: Collection[str], stop: Collection[str] = ()) -> list[Node]:
    """The nodes that the wanted tensors need, in order, nothing upstream of `stop`."""
    needed = set(wanted) - set(stop)
    kept = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(t for t in node.inputs if t not in stop)
    return kept[::-1]


def bind(graph: Graph, values: Mapping[str, Array]) -> Graph:
    """The graph with some inputs replaced by constants, and what then is constant folded.

    Raises:
        DataShape: a value's shape or dtype is not the input's.
    """
    for name, value in values.items():
        if name in graph.inputs and TensorType.of(value) != graph.inputs[name]:
            raise DataShape(f"{name!r} is {TensorType.of(value)}; the graph takes {graph.inputs[name]}")
    b = GraphBuilder()
    bound = {name: b.constant(value) for name, value in values.items() if name in graph.inputs}
    bound.update({n: b.input(n, t) for n, t in graph.inputs.items() if n not in values})
    tensors = graft(b, graph, bound, list(graph.outputs))
    for name in graph.outputs:
        b.output(name, tensors[name])
    return b.build(graph.name)
