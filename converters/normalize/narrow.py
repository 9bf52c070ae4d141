# SPDX-License-Identifier: Apache-2.0
"""Computing only what is read: a slice moves in front of whatever treats its axis entry by entry.

A classifier that reads the first position of a transformer's last layer needs one row of that layer's
products, not all of them; the gradients shrink with it. From the outputs back, each tensor is asked for a
range along one axis, or for all of it where its readers ask for different things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.layout import cut, permutation, reshape
from edgefl.converters.normalize.simplify import BROADCAST, UNARY
from edgefl.graph.model import Graph, Node

_REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")


@dataclass(frozen=True)
class Range:
    """A part of a tensor: `start` to `stop` along one axis, all of the others."""

    axis: int
    start: int
    stop: int


Wish = Range | None
"""What a reader needs of a tensor; None is all of it."""


def narrow(graph: Graph) -> Graph:
    """The same function with every tensor cut to the range that is read of it."""
    wishes = _wishes(graph)
    if not any(wishes.values()):
        return graph
    return _rebuilt(graph, wishes)


def _wishes(graph: Graph) -> dict[str, Wish]:
    """The one range that all readers of a tensor need."""
    wishes: dict[str, Wish] = dict.fromkeys(graph.outputs)
    fixed = {*graph.inputs, *graph.constants}
    for node in reversed(graph.nodes):
        if not any(tensor in wishes for tensor in node.outputs):
            continue
        if len(node.outputs) > 1:
            wishes.update(dict.fromkeys(node.outputs))
        wish = wishes.get(node.outputs[0])
        for tensor, needed in zip(node.inputs, _needed(graph, node, wish), strict=True):
            same = wishes.get(tensor, needed) == needed
            wishes[tensor] = needed if same and tensor not in fixed else None
    return wishes


def _needed(graph: Graph, node: Node, wish: Wish) -> Sequence[Wish]:
    """What a node needs of each input to give a range of its output."""
    everything: list[Wish] = [None] * len(node.inputs)
    if node.op == "Slice" and wish is None:
        return [_sliced(graph, node), *everything[1:]]
    if wish is None:
        return everything
    if node.op in UNARY:
        return [wish, *everything[1:]]
    if node.op in BROADCAST:
        return [_aligned(graph, tensor, node, wish) for tensor in node.inputs]
    first = _first(graph, node, wish)
    if node.op == "MatMul" and first is not None:
        rank = len(graph.type_of(node.outputs[0]).shape)
        return [first, _aligned(graph, node.inputs[1], node, wish) if wish.axis < rank - 2 else None]
    return [first, *everything[1:]]


def _first(graph: Graph, node: Node, wish: Range) -> Wish:
    """The range of the first input; None where the operator is not covered or mixes entries of the axis."""
    shape, out = graph.type_of(node.inputs[0]).shape, graph.type_of(node.outputs[0]).shape
    axis: int | None = None
    if node.op == "MatMul" and min(len(shape), len(graph.type_of(node.inputs[1]).shape)) > 1:
        axis = wish.axis if len(shape) == len(out) and wish.axis < len(out) - 1 else None
    elif node.op in ("Softmax", "LogSoftmax"):
        axis = wish.axis if _integer(node, "axis", -1) % len(out) != wish.axis else None
    elif node.op == "Transpose":
        axis = permutation(node)[wish.axis]
    elif node.op == "Reshape":
        axis = _before_reshape(shape, out, wish.axis)
    elif node.op in _REDUCTIONS:
        axis = _before_reduction(graph, node, len(shape), wish.axis)
    # An axis that is broadcast has no range to read.
    return Range(axis, wish.start, wish.stop) if axis is not None and shape[axis] >= wish.stop else None


def _before_reshape(shape: Sequence[int], out: Sequence[int], axis: int) -> int | None:
    for i, size in enumerate(shape):
        if size == out[axis] and math.prod(shape[:i]) == math.prod(out[:axis]):
            return i
    return None


def _before_reduction(graph: Graph, node: Node, rank: int, axis: int) -> int | None:
    axes = [int(a) % rank for a in graph.constants.get(node.inputs[1], np.arange(rank))]
    if _integer(node, "keepdims", 1):
        return axis if axis not in axes else None
    return [a for a in range(rank) if a not in axes][axis]


def _aligned(graph: Graph, tensor: str, node: Node, wish: Range) -> Wish:
    """The range of an operand that broadcasts; None where it has one entry for all of the axis."""
    shape, out = graph.type_of(tensor).shape, graph.type_of(node.outputs[0]).shape
    axis = wish.axis - (len(out) - len(shape))
    return Range(axis, wish.start, wish.stop) if axis >= 0 and shape[axis] == out[wish.axis] else None


def _sliced(graph: Graph, node: Node) -> Wish:
    """The range a Slice reads, where it cuts one axis without leaving gaps."""
    known = [graph.constants.get(tensor) for tensor in node.inputs[1:]]
    if len(known) < 4 or any(value is None or value.size != 1 for value in known):
        return None
    start, stop, axis, step = (int(value.reshape(())) for value in known if value is not None)
    shape = graph.type_of(node.inputs[0]).shape
    axis %= len(shape)
    low, high, _ = slice(start, stop).indices(shape[axis])
    return Range(axis, low, high) if step == 1 and low < high else None


def _integer(node: Node, name: str, default: int) -> int:
    return int(np.asarray(node.attributes.get(name, default)))


def _rebuilt(graph: Graph, wishes: Mapping[str, Wish]) -> Graph:
    b = GraphBuilder()
    tensors = {name: b.input(name, type) for name, type in graph.inputs.items()}
    tensors.update({name: b.constant(value) for name, value in graph.constants.items()})
    for node in graph:
        if not any(tensor in wishes for tensor in node.outputs):
            continue
        wish = wishes.get(node.outputs[0])
        needed = _needed(graph, node, wish)
        inputs = [
            _part(b, tensors[tensor], need, wishes.get(tensor)) if tensor else ""
            for tensor, need in zip(node.inputs, needed, strict=True)
        ]
        narrowed = any(needed)
        made = _emitted(b, graph, node, inputs, wish, narrowed)
        tensors.update(zip(node.outputs, made, strict=True))
        if wish is not None and not narrowed:
            tensors[node.outputs[0]] = cut(b, made[0], {wish.axis: (wish.start, wish.stop, 1)})
    for name in graph.outputs:
        b.output(name, tensors[name])
    return b.build(graph.name)


def _part(b: GraphBuilder, tensor: str, need: Wish, have: Wish) -> str:
    """The range needed of a tensor that was itself made in a range."""
    return tensor if need is None or need == have else cut(b, tensor, {need.axis: (need.start, need.stop, 1)})


def _emitted(
    b: GraphBuilder, graph: Graph, node: Node, inputs: Sequence[str], wish: Wish, narrowed: bool
) -> tuple[str, ...]:
    """The node on its inputs' ranges: a Slice has become needless, a Reshape gives fewer entries."""
    if node.op == "Slice" and narrowed:
        return (inputs[0],)
    if node.op == "Reshape" and narrowed and wish is not None:
        shape = graph.type_of(node.outputs[0]).shape
        kept = [wish.stop - wish.start if i == wish.axis else n for i, n in enumerate(shape)]
        return (reshape(b, inputs[0], kept),)
    made = b.add(node.op, *inputs, outputs=len(node.outputs), name=node.name, **node.attributes)
    return (made,) if isinstance(made, str) else made
