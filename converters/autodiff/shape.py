# SPDX-License-Identifier: Apache-2.0
"""Gradients of operators that move elements: reshaping, joining, cutting, padding, repeating."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from edgefl.converters.autodiff.expression import Expr, concat
from edgefl.converters.autodiff.registry import Gradient, NoGradient, Op, vjp
from edgefl.converters.autodiff.windows import spread

Gradients = tuple[Gradient, ...]


def _alone(op: Op, gradient: Expr) -> Gradients:
    return (gradient,) + (None,) * (len(op.node.inputs) - 1)


@vjp("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def reshape(op: Op, dy: Expr) -> Gradients:
    return _alone(op, dy.reshape(op.x.shape))


@vjp("Transpose")
def transpose(op: Op, dy: Expr) -> Gradients:
    permutation = op.integers("perm", tuple(reversed(range(dy.rank))))
    return (dy.transpose(*(permutation.index(axis) for axis in range(dy.rank))),)


@vjp("Concat")
def concatenate(op: Op, dy: Expr) -> Gradients:
    axis = op.integer("axis", 0) % dy.rank
    stops = [0]
    for part in op.inputs:
        stops.append(stops[-1] + part.shape[axis])
    return tuple(_piece(dy, axis, a, b) for a, b in itertools.pairwise(stops))


def _piece(x: Expr, axis: int, start: int, stop: int) -> Gradient:
    return lambda: x.slice(axis, start, stop)


@vjp("Split")
def split(op: Op, *dy: Expr) -> Gradients:
    return _alone(op, concat(dy, op.integer("axis", 0) % op.x.rank))


@vjp("Slice")
def slice_(op: Op, dy: Expr) -> Gradients:
    """Zeros everywhere but where the slice read."""
    rank = op.x.rank
    starts, stops = ([int(v) for v in op.known(i)] for i in (1, 2))
    axes = [int(v) % rank for v in op.known(3)] if op.has(3) else list(range(len(starts)))
    steps = [int(v) for v in op.known(4)] if op.has(4) else [1] * len(starts)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        size = op.x.shape[axis]
        dy = place(dy, axis, range(*slice(start, _open(stop, step), step).indices(size)), size)
    return _alone(op, dy)


def _open(stop: int, step: int) -> int | None:
    """A stop in front of the first element, which ONNX writes as a large negative number."""
    return None if step < 0 and stop < -(1 << 30) else stop


def place(dy: Expr, axis: int, read: range, length: int) -> Expr:
    """Zeros of the given length along an axis, with `dy` where the range points."""
    if read.step < 0:
        dy, read = dy.reverse(axis), read[::-1]
    if read.step == 1 or len(read) == 1:
        return dy.pad_axis(axis, read.start, length - read.start - len(read))
    return spread([(read.start, dy)], axis, read.step, length)


@vjp("Pad")
def pad(op: Op, dy: Expr) -> Gradients:
    mode = op.text("mode", "constant")
    if mode not in _PAD_ADJOINTS:
        raise NoGradient(f"mode={mode!r} is not covered")
    rank, x = op.x.rank, op.x
    axes = [int(a) % rank for a in op.known(3)] if op.has(3) else list(range(rank))
    widths = [int(v) for v in op.known(1)]
    for axis, before, after in zip(axes, widths, widths[len(axes) :], strict=False):
        if before or after:
            dy = _PAD_ADJOINTS[mode](dy, axis, before, after, x.shape[axis])
    return _alone(op, dy)


def _unpad_constant(dy: Expr, axis: int, before: int, after: int, size: int) -> Expr:
    inside = dy.slice(axis, max(before, 0), max(before, 0) + size + min(before, 0) + min(after, 0))
    return inside.pad_axis(axis, max(-before, 0), max(-after, 0))


def _unpad_reflect(dy: Expr, axis: int, before: int, after: int, size: int) -> Expr:
    """The border's gradient is added to where it was mirrored from."""
    return _unpad_border(dy, axis, (before, after), size, lambda border: border.reverse(axis), gap=1)


def _unpad_edge(dy: Expr, axis: int, before: int, after: int, size: int) -> Expr:
    """The border's gradient is added to the edge."""
    return _unpad_border(
        dy, axis, (before, after), size, lambda border: border.sum([axis], keepdims=True), gap=0
    )


def _unpad_border(
    dy: Expr, axis: int, widths: tuple[int, int], size: int, fold: Callable[[Expr], Expr], gap: int
) -> Expr:
    before, after = widths
    if min(widths) < 0:
        raise NoGradient("negative padding is covered with mode='constant' only")
    total = dy.slice(axis, before, before + size)
    if before:
        border = fold(dy.slice(axis, 0, before))
        total = total + border.pad_axis(axis, gap, size - gap - border.shape[axis])
    if after:
        border = fold(dy.slice(axis, before + size, before + size + after))
        total = total + border.pad_axis(axis, size - gap - border.shape[axis], gap)
    return total


_PAD_ADJOINTS = {"constant": _unpad_constant, "reflect": _unpad_reflect, "edge": _unpad_edge}


@vjp("Expand")
def expand(op: Op, dy: Expr) -> Gradients:
    return dy.sum_to(op.x.shape), None


@vjp("Tile")
def tile(op: Op, dy: Expr) -> Gradients:
    """Sum over the copies, one axis at a time."""
    for axis, copies in enumerate(int(c) for c in op.known(1)):
        if copies > 1:
            size = op.x.shape[axis]
            dy = dy.reshape((*dy.shape[:axis], copies, size, *dy.shape[axis + 1 :])).sum([axis])
    return dy, None


@vjp("Trilu")
def triangle(op: Op, dy: Expr) -> Gradients:
    """The same triangle of the gradient."""
    others = [op.input(1)] if op.has(1) else []
    return _alone(op, dy.apply("Trilu", *others, upper=op.integer("upper", 1)))
