# SPDX-License-Identifier: Apache-2.0
"""Gradients of reductions, of softmax and of cumulative sums."""

from __future__ import annotations

import math

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.autodiff.registry import Gradient, Op, vjp

Gradients = tuple[Gradient, ...]


def _axes(op: Op) -> tuple[int, ...]:
    """The reduced axes, from the second input (opset 18) or the attribute (before)."""
    given = tuple(int(a) for a in op.known(1).reshape(-1)) if op.has(1) else op.integers("axes", ())
    if not given and op.integer("noop_with_empty_axes", 0):
        return ()
    return tuple(a % op.x.rank for a in given) or tuple(range(op.x.rank))


def _kept(op: Op, reduced: Expr) -> Expr:
    """An output, or its gradient, with the reduced axes kept at size 1."""
    axes = _axes(op)
    return reduced.reshape([1 if i in axes else n for i, n in enumerate(op.x.shape)])


def _alone(op: Op, gradient: Expr) -> Gradients:
    return (gradient,) + (None,) * (len(op.node.inputs) - 1)


@vjp("ReduceSum")
def reduce_sum(op: Op, dy: Expr) -> Gradients:
    return _alone(op, _kept(op, dy).expand(op.x.shape))


@vjp("ReduceMean")
def reduce_mean(op: Op, dy: Expr) -> Gradients:
    count = math.prod(op.x.shape[a] for a in _axes(op))
    return _alone(op, (_kept(op, dy) / float(count)).expand(op.x.shape))


@vjp("ReduceMax", "ReduceMin")
def reduce_extreme(op: Op, dy: Expr) -> Gradients:
    """Shared equally among tied elements, as `torch.amax` and TensorFlow do."""
    hits = op.x.equals(_kept(op, op.y)).cast(dy.dtype)
    return _alone(op, hits * (_kept(op, dy) / hits.sum(_axes(op), keepdims=True)))


@vjp("ReduceSumSquare")
def reduce_sum_square(op: Op, dy: Expr) -> Gradients:
    return _alone(op, op.x * (_kept(op, dy) * 2.0))


@vjp("ReduceL1")
def reduce_l1(op: Op, dy: Expr) -> Gradients:
    return _alone(op, op.x.apply("Sign") * _kept(op, dy))


@vjp("ReduceL2")
def reduce_l2(op: Op, dy: Expr) -> Gradients:
    """`x / |x|`, zero where the norm is."""
    norm = _kept(op, op.y)
    safe = norm.equals(0.0).where(norm.constant(1.0), norm)
    return _alone(op, op.x * (_kept(op, dy) / safe))


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(op: Op, dy: Expr) -> Gradients:
    return _alone(op, (op.x - _kept(op, op.y)).exp() * _kept(op, dy))


@vjp("Softmax")
def softmax(op: Op, dy: Expr) -> Gradients:
    weighted = dy * op.y
    return (weighted - op.y * weighted.sum([op.integer("axis", -1) % dy.rank], keepdims=True),)


@vjp("LogSoftmax")
def log_softmax(op: Op, dy: Expr) -> Gradients:
    return (dy - op.y.exp() * dy.sum([op.integer("axis", -1) % dy.rank], keepdims=True),)


@vjp("CumSum")
def cumulative_sum(op: Op, dy: Expr) -> Gradients:
    """A cumulative sum from the other end."""
    turned = 1 - op.integer("reverse", 0)
    return dy.apply("CumSum", op.input(1), exclusive=op.integer("exclusive", 0), reverse=turned), None
