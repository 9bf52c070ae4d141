# SPDX-License-Identifier: Apache-2.0
"""Rewrites of matrix products, variadic arithmetic, powers and reductions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.layout import cast, pad, reshape, take, transpose
from edgefl.converters.normalize.registry import (
    axes_constant,
    given,
    integer,
    keep,
    like,
    number,
    rewrite,
    static_ints,
)
from edgefl.errors import UnsupportedOperator
from edgefl.graph.model import Node

_PRODUCT_LIMIT = 64  # factors of a ReduceProd written out


@rewrite("Gemm")
def gemm(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    left = transpose(b, inputs[0], (1, 0)) if integer(node, "transA", 0) else inputs[0]
    right = transpose(b, inputs[1], (1, 0)) if integer(node, "transB", 0) else inputs[1]
    product = scaled(b, b.add("MatMul", left, right), number(node, "alpha", 1.0))
    if not given(inputs, 2):
        return product
    return b.add("Add", product, scaled(b, inputs[2], number(node, "beta", 1.0)))


def scaled(b: GraphBuilder, x: str, factor: float) -> str:
    """`x * factor`."""
    return x if factor == 1.0 else b.add("Mul", x, like(b, x, factor))


@rewrite("MatMul")
def matmul(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Vectors become matrices of one row or one column."""
    left, right = inputs
    shapes = b.shape(left), b.shape(right)
    if len(shapes[0]) > 1 and len(shapes[1]) > 1:
        return b.add("MatMul", left, right)
    left = reshape(b, left, (1, *shapes[0])) if len(shapes[0]) == 1 else left
    right = reshape(b, right, (*shapes[1], 1)) if len(shapes[1]) == 1 else right
    product = b.add("MatMul", left, right)
    shape = list(b.shape(product))
    if len(shapes[1]) == 1:
        shape.pop()
    if len(shapes[0]) == 1:
        shape.pop(-1 if len(shapes[1]) == 1 else -2)
    return reshape(b, product, shape)


def chain(b: GraphBuilder, op: str, inputs: Sequence[str]) -> str:
    """A variadic operator as binary ones."""
    total = inputs[0]
    for x in inputs[1:]:
        total = b.add(op, total, x)
    return total


@rewrite("Sum")
def sum_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return chain(b, "Add", inputs)


@rewrite("Mean")
def mean(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return scaled(b, chain(b, "Add", inputs), 1 / len(inputs))


@rewrite("Min", "Max")
def extremum(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return chain(b, node.op, inputs)


@rewrite("Pow")
def power(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x, exponent = inputs
    value = b.value(exponent)
    if value is None or value.size != 1 or len(value.shape) > len(b.shape(x)):
        return b.add("Pow", x, cast(b, exponent, b.type(x).dtype))
    return raised(b, x, float(value.ravel()[0]))


def raised(b: GraphBuilder, x: str, exponent: float) -> str:
    """`x ** exponent`; small exponents are products and roots, whose gradients are exact at 0."""
    small = _POWERS.get(exponent)
    if small is None or b.type(x).dtype.kind != "f":
        return b.add("Pow", x, like(b, x, exponent))
    return small(b, x)


def squared(b: GraphBuilder, x: str) -> str:
    """`x * x`."""
    return b.add("Mul", x, x)


_POWERS: dict[float, Callable[[GraphBuilder, str], str]] = {
    0.5: lambda b, x: b.add("Sqrt", x),
    1.0: lambda b, x: x,
    2.0: squared,
    3.0: lambda b, x: b.add("Mul", squared(b, x), x),
    -0.5: lambda b, x: b.add("Reciprocal", b.add("Sqrt", x)),
    -1.0: lambda b, x: b.add("Reciprocal", x),
}


def reduce(b: GraphBuilder, op: str, x: str, axes: Sequence[int], keepdims: bool) -> str:
    """A reduction over sorted axes; over axes of size 1 it is a reshape."""
    shape = b.shape(x)
    if all(shape[a] == 1 for a in axes):
        return x if keepdims else reshape(b, x, [n for i, n in enumerate(shape) if i not in axes])
    return b.add(op, x, axes_constant(b, sorted(axes)), keepdims=int(keepdims))


def reduced_axes(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> tuple[list[int], bool]:
    """Axes and keepdims of a reduction node; no axes mean all, or none where the node says so."""
    rank = len(b.shape(inputs[0]))
    axes = static_ints(b, node, inputs, 1)
    if not axes:
        axes = () if integer(node, "noop_with_empty_axes", 0) else tuple(range(rank))
    return sorted({a % rank for a in axes}), bool(integer(node, "keepdims", 1))


@rewrite("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
def plain_reduction(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return reduce(b, node.op, inputs[0], *reduced_axes(b, node, inputs))


@rewrite("ReduceL1")
def reduce_l1(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return reduce(b, "ReduceSum", b.add("Abs", inputs[0]), *reduced_axes(b, node, inputs))


@rewrite("ReduceSumSquare")
def reduce_sum_square(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return reduce(b, "ReduceSum", squared(b, inputs[0]), *reduced_axes(b, node, inputs))


@rewrite("ReduceL2")
def reduce_l2(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.add("Sqrt", reduce_sum_square(b, node, inputs))


@rewrite("ReduceLogSum")
def reduce_log_sum(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.add("Log", reduce(b, "ReduceSum", inputs[0], *reduced_axes(b, node, inputs)))


@rewrite("ReduceLogSumExp")
def reduce_log_sum_exp(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """The maximum is taken out first so that nothing overflows."""
    axes, keepdims = reduced_axes(b, node, inputs)
    highest = reduce(b, "ReduceMax", inputs[0], axes, True)
    total = reduce(b, "ReduceSum", b.add("Exp", b.add("Sub", inputs[0], highest)), axes, True)
    result = b.add("Add", b.add("Log", total), highest)
    shape = [n for i, n in enumerate(b.shape(result)) if keepdims or i not in axes]
    return reshape(b, result, shape)


@rewrite("ReduceProd")
def reduce_prod(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    """Written out factor by factor, since a sum of logarithms fails on what is not positive."""
    if b.value(inputs[0]) is not None or not b.type(inputs[0]).size:
        return keep(b, node, inputs)
    axes, keepdims = reduced_axes(b, node, inputs)
    x, shape = inputs[0], b.shape(inputs[0])
    factors = int(np.prod([shape[a] for a in axes], dtype=np.int64))
    if factors > _PRODUCT_LIMIT:
        raise UnsupportedOperator(
            f"node {node}: a product of {factors} elements, at most {_PRODUCT_LIMIT} are written out"
        )
    for axis in axes:
        x = chain(b, "Mul", [take(b, x, axis, i, i + 1) for i in range(shape[axis])])
    return x if keepdims else reshape(b, x, [n for i, n in enumerate(shape) if i not in axes])


@rewrite("CumSum")
def cumulative_sum(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """A product with a triangular matrix of ones; of integers, which TFLite cannot multiply so, sums."""
    axis_given = static_ints(b, node, inputs, 1)
    assert axis_given is not None
    rank = len(b.shape(inputs[0]))
    axis = axis_given[0] % rank
    n = b.shape(inputs[0])[axis]
    if b.type(inputs[0]).dtype.kind != "f":
        return _running(b, node, inputs[0], axis)
    ones = np.triu(np.ones((n, n)), integer(node, "exclusive", 0)).astype(b.type(inputs[0]).dtype)
    perm = [i for i in range(rank) if i != axis] + [axis]
    last = transpose(b, inputs[0], perm)
    rows = reshape(b, last, (-1 if not n else b.type(last).size // n, n))
    summed = b.add("MatMul", rows, b.constant(ones.T if integer(node, "reverse", 0) else ones))
    return transpose(b, reshape(b, summed, b.shape(last)), np.argsort(perm).tolist())


def _running(b: GraphBuilder, node: Node, x: str, axis: int) -> str:
    """Sums of the last 1, 2, 4, ... elements: exact, and as many additions as the length has bits."""
    reverse = bool(integer(node, "reverse", 0))
    if integer(node, "exclusive", 0):
        x = _shifted(b, x, axis, 1, reverse)
    reach = 1
    while reach < b.shape(x)[axis]:
        x = b.add("Add", x, _shifted(b, x, axis, reach, reverse))
        reach *= 2
    return x


def _shifted(b: GraphBuilder, x: str, axis: int, by: int, back: bool) -> str:
    """The tensor moved along an axis to later places, or to earlier ones, with zeros behind it."""
    amounts = [by if i == axis else 0 for i in range(len(b.shape(x)))]
    opposite = [-n for n in amounts]
    return pad(b, x, opposite, amounts) if back else pad(b, x, amounts, opposite)


@rewrite("Clip")
def clip(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Known bounds stay a Clip, others become Max and Min."""
    x, bounds = inputs[0], (given(inputs, 1), given(inputs, 2))
    if not any(bounds):
        return x
    if all(not t or b.value(t) is not None for t in bounds):
        return b.add("Clip", x, *bounds)
    for op, bound in zip(("Max", "Min"), bounds, strict=True):
        x = b.add(op, x, bound) if bound else x
    return x


@rewrite("Softmax", "LogSoftmax")
def softmax(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.add(node.op, inputs[0], axis=integer(node, "axis", -1) % len(b.shape(inputs[0])))


@rewrite("ArgMax", "ArgMin")
def arg_extremum(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    rest = {k: v for k, v in node.attributes.items() if k != "axis"}
    axis = integer(node, "axis", 0) % len(b.shape(inputs[0]))
    made = b.add(node.op, inputs[0], **{"axis": axis, **rest})  # type: ignore[arg-type]
    assert isinstance(made, str)
    return made


def spread(b: GraphBuilder, x: str, shape: Sequence[int]) -> str:
    """A vector of channels shaped to meet `shape`, where axis 1 counts them."""
    return reshape(b, x, [1, b.type(x).size, *[1] * (len(shape) - 2)])
