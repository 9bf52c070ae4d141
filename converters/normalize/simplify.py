# SPDX-License-Identifier: Apache-2.0
"""Simplifying a normalised graph: transposes and reshapes sink until they meet and cancel.

TensorFlow's exporter puts a transpose on each side of every convolution. An element-wise operator, a
reduction, a Concat, a Slice or a Pad gives the same result before a transpose as after it, so each is
moved in front; pairs that come together are composed by `layout.transpose`, mostly to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.arithmetic import reduce
from edgefl.converters.normalize.layout import (
    concat,
    cut,
    inverse,
    permutation,
    reshape,
    transpose,
    unit_axes,
)
from edgefl.converters.normalize.registry import Rewrite, keep, registrar
from edgefl.graph.model import Node

SIMPLIFICATIONS: dict[str, Rewrite] = {}
simplification = registrar(SIMPLIFICATIONS)

UNARY = (
    *(
        "Neg",
        "Abs",
        "Sign",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Erf",
        "Tanh",
        "Sigmoid",
        "Relu",
        "LeakyRelu",
        "Elu",
    ),
    *("Clip", "Softplus", "HardSigmoid", "Cast", "Not", "Floor", "Ceil", "Round", "Sin", "Cos"),
)
BROADCAST = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "And", "Or", "Where"),
    *("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"),
)


@simplification(*UNARY)
def unary(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    moved = b.producer(inputs[0])
    if moved is None or moved.op not in ("Transpose", "Reshape"):
        return keep(b, node, inputs)
    inner = _same(b, node, (moved.inputs[0], *inputs[1:]))
    return _again(b, moved, inner, b.shape(inputs[0]))


@simplification(*BROADCAST)
def broadcast(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    neutral = _neutral(b, node, inputs)
    if neutral:
        return neutral
    if node.op == "Add" and (less := _less(b, inputs)):
        return less
    shape = np.broadcast_shapes(*(b.shape(t) for t in inputs))
    moved = [p for p in map(b.producer, inputs) if p is not None and p.op in ("Transpose", "Reshape")]
    for first in moved:
        if b.shape(first.outputs[0]) != shape:
            continue
        inner = [_before(b, first, t) for t in inputs]
        if all(t is not None for t in inner):
            return _again(b, first, _same(b, node, [t for t in inner if t is not None]), shape)
    return keep(b, node, inputs)


def _neutral(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """The input that `x + 0`, `x - 0`, `x * 1` or `x / 1` equals, or ""."""
    unit = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}.get(node.op)
    if unit is None:
        return ""
    pairs = ((inputs[0], inputs[1]), (inputs[1], inputs[0]))[: 2 if node.op in ("Add", "Mul") else 1]
    for x, other in pairs:
        value = b.value(other)
        same_shape = np.broadcast_shapes(b.shape(x), b.shape(other)) == b.shape(x)
        if value is not None and same_shape and value.size and bool(np.all(value == unit)):
            return x
    return ""


def _less(b: GraphBuilder, inputs: Sequence[str]) -> str:
    """`x + (-y)` as `x - y`, or ""."""
    for x, other in (inputs, inputs[::-1]):
        negated = b.producer(other)
        if negated is not None and negated.op == "Neg":
            return b.add("Sub", x, negated.inputs[0])
    return ""


def _same(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    made = b.add(node.op, *inputs, **node.attributes)  # type: ignore[arg-type]
    assert isinstance(made, str)
    return made


def _again(b: GraphBuilder, moved: Node, inner: str, shape: Sequence[int]) -> str:
    return transpose(b, inner, permutation(moved)) if moved.op == "Transpose" else reshape(b, inner, shape)


def _before(b: GraphBuilder, moved: Node, tensor: str) -> str | None:
    """What the operand was before the transpose or reshape `moved`; None when only moving it could tell."""
    source = b.producer(tensor)
    if source is not None and source.op == moved.op and _alike(b, source, moved):
        return source.inputs[0]
    if b.type(tensor).size == 1:
        return reshape(b, tensor, ())
    if moved.op != "Transpose":
        return _before_reshape(b, moved, tensor)
    perm = permutation(moved)
    shape = (1,) * (len(perm) - len(b.shape(tensor))) + b.shape(tensor)
    if sum(n != 1 for n in shape) > 1 and b.value(tensor) is None:
        return None
    return transpose(b, reshape(b, tensor, shape), inverse(perm))


def _before_reshape(b: GraphBuilder, moved: Node, tensor: str) -> str | None:
    """Where the reshape only adds or drops axes of size 1, every operand can go without them too."""
    old, new = b.shape(moved.inputs[0]), b.shape(moved.outputs[0])
    places = unit_axes(old, new)
    if places is None:
        return None
    shape = (1,) * (len(new) - len(b.shape(tensor))) + b.shape(tensor)
    return reshape(b, tensor, [1 if place is None else shape[place] for place in places])


def _alike(b: GraphBuilder, one: Node, other: Node) -> bool:
    if one.op == "Transpose":
        return permutation(one) == permutation(other)
    return b.shape(one.inputs[0]) == b.shape(other.inputs[0]) and b.shape(one.outputs[0]) == b.shape(
        other.outputs[0]
    )


def _transposed(b: GraphBuilder, tensor: str) -> tuple[str, tuple[int, ...]] | None:
    """Source and permutation of a tensor made by a Transpose."""
    source = b.producer(tensor)
    return (
        (source.inputs[0], permutation(source)) if source is not None and source.op == "Transpose" else None
    )


def _axes(b: GraphBuilder, tensor: str) -> list[int]:
    value = b.value(tensor)
    assert value is not None
    return [int(v) for v in value]


@simplification("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
def reduction(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    found = _transposed(b, inputs[0])
    if found is None:
        return keep(b, node, inputs)
    source, perm = found
    axes = [perm[a] for a in _axes(b, inputs[1])]
    if node.attributes["keepdims"]:
        return transpose(b, reduce(b, node.op, source, axes, True), perm)
    rest = [p for p in perm if p not in axes]
    return transpose(b, reduce(b, node.op, source, axes, False), np.argsort(np.argsort(rest)).tolist())


@simplification("Concat")
def joined(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    found = [_transposed(b, t) for t in inputs]
    sources = [f[0] for f in found if f]
    perms = {f[1] for f in found if f}
    axis = node.attributes["axis"]
    assert isinstance(axis, int)
    if len(sources) < len(inputs) or len(perms) > 1:
        return keep(b, node, inputs)
    perm = perms.pop()
    return transpose(b, concat(b, sources, perm[axis]), perm)


@simplification("Slice")
def sliced(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    found = _transposed(b, inputs[0])
    if found is None:
        return keep(b, node, inputs)
    starts, ends, axes, steps = (_axes(b, t) for t in inputs[1:])
    ranges = zip((found[1][a] for a in axes), starts, ends, steps, strict=True)
    return transpose(b, cut(b, found[0], {axis: (lo, hi, step) for axis, lo, hi, step in ranges}), found[1])


@simplification("Pad")
def padded(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    found = _transposed(b, inputs[0])
    if found is None:
        return keep(b, node, inputs)
    source, perm = found
    amounts, back = _axes(b, inputs[1]), inverse(perm)
    moved = [amounts[a + offset] for offset in (0, len(perm)) for a in back]
    amount = b.constant(np.asarray(moved, np.int64))
    return transpose(b, b.add("Pad", source, amount, *inputs[2:], **node.attributes), perm)  # type: ignore[arg-type]


@simplification("Transpose")
def transposed(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return transpose(b, inputs[0], permutation(node))


@simplification("Reshape")
def reshaped(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """A transpose sinks through a reshape that only adds or drops axes of size 1."""
    shape = _axes(b, inputs[1])
    found = _transposed(b, inputs[0])
    places = unit_axes(shape, b.shape(inputs[0]))
    if found is None or places is None:
        return reshape(b, inputs[0], shape)
    source, perm = found
    origin = [perm[place] if place is not None else -1 for place in places]
    order = np.argsort(origin, kind="stable").tolist()
    return transpose(b, reshape(b, source, [shape[axis] for axis in order]), inverse(order))
