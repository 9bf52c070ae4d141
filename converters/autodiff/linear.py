# SPDX-License-Identifier: Apache-2.0
"""Gradients of matrix products."""

from __future__ import annotations

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.autodiff.registry import Gradient, Op, vjp


@vjp("MatMul")
def matmul(op: Op, dy: Expr) -> tuple[Gradient, ...]:
    """`dA = dY B^T`, `dB = A^T dY`, summed over batch axes an operand does not have."""
    a, b = op.inputs
    row = a.reshape((1, *a.shape)) if a.rank == 1 else a
    column = b.reshape((*b.shape, 1)) if b.rank == 1 else b
    out = dy.reshape(_full_shape(dy.shape, a.rank == 1, b.rank == 1))
    return (
        lambda: _left(row, column, out).reshape(a.shape),
        lambda: _right(row, column, out).reshape(b.shape),
    )


def _full_shape(shape: tuple[int, ...], row: bool, column: bool) -> tuple[int, ...]:
    """The product's shape with the axes that vectors leave out."""
    with_column = (*shape, 1) if column else shape
    return (*with_column[:-1], 1, with_column[-1]) if row else with_column


def _left(a: Expr, b: Expr, dy: Expr) -> Expr:
    if a.rank == 2 and b.rank > 2:
        return _right(b.swap_last(), a.swap_last(), dy.swap_last()).swap_last()
    return (dy @ b.swap_last()).sum_to(a.shape)


def _right(a: Expr, b: Expr, dy: Expr) -> Expr:
    if b.rank == 2 and a.rank > 2:
        # One product over all rows, rather than one per batch entry and their sum.
        a, dy = (t.reshape((-1, t.shape[-1])) for t in (a, dy))
    return (a.swap_last() @ dy).sum_to(b.shape)


@vjp("Gemm")
def gemm(op: Op, dy: Expr) -> tuple[Gradient, ...]:
    """`alpha op(A) op(B) + beta C`."""
    a, b = op.input(0), op.input(1)
    left, right = (bool(op.integer(f"trans{n}", 0)) for n in "AB")
    alpha, beta = op.real("alpha", 1.0), op.real("beta", 1.0)
    scaled = dy * alpha
    first, second = (t.swap_last() if flag else t for t, flag in ((a, left), (b, right)))
    return (
        lambda: _turned(scaled @ second.swap_last(), left),
        lambda: _turned(first.swap_last() @ scaled, right),
        *([lambda: (dy * beta).sum_to(op.input(2).shape)] if op.has(2) else []),
    )


def _turned(x: Expr, flag: bool) -> Expr:
    return x.swap_last() if flag else x
