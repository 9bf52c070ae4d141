# SPDX-License-Identifier: Apache-2.0
"""Gradients of pools, of any kernel, stride, dilation and padding, and of Resize."""

from __future__ import annotations

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.autodiff.registry import Gradient, NoGradient, Op, vjp
from edgefl.converters.autodiff.windows import Window
from edgefl.graph.interpreter import execute
from edgefl.graph.model import Array, Node


@vjp("MaxPool")
def max_pool(op: Op, dy: Expr, *indices: Expr) -> tuple[Gradient, ...]:
    """Of equal maxima the first in raster order receives the gradient, as in torch and TensorFlow."""
    x, window = op.x, _window(op)
    lowest = float(np.finfo(x.dtype).min)
    rest, taken = dy, {}
    *earlier, last = window.taps(x, lowest).items()
    for position, tap in earlier:
        taken[position] = tap.equals(op.y).keep(rest)
        rest = rest - taken[position]
    return (window.scatter({**taken, last[0]: rest}),)


@vjp("AveragePool")
def average_pool(op: Op, dy: Expr) -> tuple[Gradient, ...]:
    window = _window(op)
    counts = window.counts(bool(op.integer("count_include_pad", 0))).astype(dy.dtype)
    share = dy / (float(counts.flat[0]) if np.all(counts == counts.flat[0]) else dy.constant(counts))
    return (window.scatter(dict.fromkeys(window.positions, share)),)


@vjp("GlobalAveragePool")
def global_average_pool(op: Op, dy: Expr) -> tuple[Gradient, ...]:
    return ((dy / float(np.prod(op.x.shape[2:]))).expand(op.x.shape),)


def _window(op: Op) -> Window:
    return Window.of(op, op.x.shape[2:], op.y.shape[2:], op.integers("kernel_shape", ()))


@vjp("Resize")
def resize(op: Op, dy: Expr) -> tuple[Gradient, ...]:
    """Resizing is linear along each axis: the gradient multiplies by each axis's matrix, transposed."""
    if op.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise NoGradient("coordinate_transformation_mode=tf_crop_and_resize is not covered")
    if op.integers("axes", ()):
        raise NoGradient("the attribute axes is not covered")
    if op.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NoGradient("keep_aspect_ratio_policy other than stretch is not covered")
    for axis in range(dy.rank):
        if dy.shape[axis] != op.x.shape[axis] or _scale(op, axis) != 1:
            dy = _shrink(dy, axis, _matrix(op, axis))
    return (dy,) + (None,) * (len(op.node.inputs) - 1)


def _shrink(dy: Expr, axis: int, matrix: Array) -> Expr:
    """`[..., out, ...]` to `[..., in, ...]` by a matrix `[in, out]` along the axis."""
    n, out = matrix.shape
    if out % n == 0 and np.array_equal(matrix, np.repeat(np.eye(n), out // n, axis=1)):
        parted = (*dy.shape[:axis], n, out // n, *dy.shape[axis + 1 :])
        return dy.reshape(parted).sum([axis + 1])
    if axis == dy.rank - 1:
        return dy @ dy.constant(np.ascontiguousarray(matrix.T))
    outer = dy.reshape((-1 if dy.shape[:axis] else 1, out, int(np.prod(dy.shape[axis + 1 :]))))
    return (dy.constant(matrix) @ outer).reshape((*dy.shape[:axis], n, *dy.shape[axis + 1 :]))


def _has_scales(op: Op) -> bool:
    return op.has(2) and op.known(2).size > 0


def _scale(op: Op, axis: int) -> float:
    return float(op.known(2)[axis]) if _has_scales(op) else op.y.shape[axis] / op.x.shape[axis]


def _matrix(op: Op, axis: int) -> Array:
    """What resizing does along one axis, `[in, out]`, found by resizing unit vectors."""
    shape, other = op.x.shape, 1 if axis == 0 else 0
    units = [1] * len(shape)
    units[axis] = units[other] = shape[axis]
    x = np.eye(shape[axis], dtype=op.x.dtype).reshape(units)
    if _has_scales(op):
        how = np.array([_scale(op, i) if i == axis else 1 for i in range(len(shape))], np.float32)
    else:
        how = np.array([op.y.shape[i] if i == axis else n for i, n in enumerate(units)], np.int64)
    names = ("x", "", "how") if _has_scales(op) else ("x", "", "", "how")
    node = Node("Resize", names, ("y",), op.node.attributes, op.node.name)
    (y,) = execute(node, {"x": x, "how": how})
    return np.moveaxis(y, other, 0).reshape(shape[axis], op.y.shape[axis])
