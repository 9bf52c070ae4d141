# SPDX-License-Identifier: Apache-2.0
"""Gradients of reading and writing by index: embeddings, gathers and scatters."""

from __future__ import annotations

import numpy as np

from edgefl.converters.autodiff.expression import Expr, zeros_like
from edgefl.converters.autodiff.registry import Gradient, NoGradient, Op, vjp
from edgefl.converters.autodiff.shape import place

Gradients = tuple[Gradient, ...]

_ONE_HOT_LIMIT = 1 << 16  # elements; above it a scatter is cheaper than a product with a one-hot matrix


@vjp("Gather")
def gather(op: Op, dy: Expr) -> Gradients:
    """Rows read several times receive the sum."""
    x, indices, axis = op.x, op.input(1), op.integer("axis", 0) % op.x.rank
    run = _as_range(indices, x.shape[axis])
    if run is not None:
        kept = (*x.shape[:axis], len(run), *x.shape[axis + 1 :])
        return place(dy.reshape(kept), axis, run, x.shape[axis]), None
    count = int(np.prod(indices.shape))
    if 0 in dy.shape:
        return zeros_like(x), None
    rows = dy.reshape((*x.shape[:axis], count, *x.shape[axis + 1 :]))
    front = (axis, *(i for i in range(x.rank) if i != axis))
    moved = rows.transpose(*front)
    summed = _sum_rows(moved.reshape((count, -1)), indices.reshape((count,)), x.shape[axis])
    back = tuple(front.index(i) for i in range(x.rank))
    return summed.reshape((x.shape[axis], *moved.shape[1:])).transpose(*back), None


def _as_range(indices: Expr, size: int) -> range | None:
    """Constant indices that form a forward slice."""
    if indices.value is None or indices.rank > 1:
        return None
    values = np.atleast_1d(indices.value) % size
    step = int(values[1] - values[0]) if values.size > 1 else 1
    if values.size == 0 or step < 1 or np.any(np.diff(values) != step):
        return None
    return range(int(values[0]), int(values[-1]) + 1, step)


def _sum_rows(rows: Expr, indices: Expr, size: int) -> Expr:
    """`[size, D]` from rows `[n, D]`, each added at its index."""
    count = rows.shape[0]
    if size * count > _ONE_HOT_LIMIT:
        return zeros_like(rows, (size, rows.shape[1])).apply(
            "ScatterND", indices.cast(np.int64).reshape((count, 1)), rows, reduction="add"
        )
    wrapped = indices.less(0).where(indices + size, indices)
    classes = indices.constant(np.arange(size)[:, None])
    return classes.equals(wrapped.reshape((1, count))).cast(rows.dtype) @ rows


@vjp("GatherElements")
def gather_elements(op: Op, dy: Expr) -> Gradients:
    x, indices, axis = op.x, op.input(1), op.integer("axis", 0) % op.x.rank
    if indices.shape == tuple(1 if i == axis else n for i, n in enumerate(x.shape)):
        wrapped = indices.less(0).where(indices + x.shape[axis], indices)
        places = np.arange(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.rank)])
        return indices.constant(places).equals(wrapped).keep(dy), None
    return zeros_like(x).apply("ScatterElements", indices, dy, axis=axis, reduction="add"), None


@vjp("TopK")
def top_k(op: Op, dy: Expr, indices: Expr) -> Gradients:
    """Each value's gradient goes to where it came from."""
    axis = op.integer("axis", -1) % op.x.rank
    return zeros_like(op.x).apply("ScatterElements", op.output(1), dy, axis=axis, reduction="add"), None


@vjp("GatherND")
def gather_nd(op: Op, dy: Expr) -> Gradients:
    if op.integer("batch_dims", 0):
        raise NoGradient("batch_dims other than 0 are not covered")
    return zeros_like(op.x).apply("ScatterND", op.input(1), dy, reduction="add"), None


@vjp("ScatterND")
def scatter_nd(op: Op, dy: Expr) -> Gradients:
    _check_reduction(op)
    indices, updates = op.input(1), op.input(2)
    return (
        lambda: _unwritten(op, dy, "ScatterND"),
        None,
        lambda: dy.apply("GatherND", indices).reshape(updates.shape),
    )


@vjp("ScatterElements")
def scatter_elements(op: Op, dy: Expr) -> Gradients:
    _check_reduction(op)
    axis = op.integer("axis", 0)
    return (
        lambda: _unwritten(op, dy, "ScatterElements", axis=axis),
        None,
        lambda: dy.apply("GatherElements", op.input(1), axis=axis),
    )


def _check_reduction(op: Op) -> None:
    if op.text("reduction", "none") not in ("none", "add"):
        raise NoGradient(f"reduction={op.text('reduction', 'none')!r} is not covered")


def _unwritten(op: Op, dy: Expr, kind: str, **attributes: int) -> Expr:
    """The gradient of the data scattered into: what was overwritten has none."""
    if op.text("reduction", "none") == "add":
        return dy
    return dy.apply(kind, op.input(1), zeros_like(op.input(2)), **attributes)
