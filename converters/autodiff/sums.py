# SPDX-License-Identifier: Apache-2.0
"""Sums of gradients, with the many small products and sums of an unrolled recurrence made into one each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgefl.converters.autodiff.expression import Expr, add_all, concat

_FEW = 4  # below it, joining operands costs as much as the products


def total(tensors: Sequence[Expr]) -> Expr:
    """The sum of one or more tensors of one shape.

    A weight used at every step of a sequence has one product `A_t B_t` per step as gradient; their sum is one
    product of the `A_t` side by side with the `B_t` on top of each other. A bias has one sum over the batch
    per step; their sum is one sum over all rows. Padded pieces are added pair by pair: what joins them copies
    lists as long as the sums so far.
    """
    products = [tensor for tensor in tensors if _is_product(tensor)]
    sums = [tensor for tensor in tensors if _summed(tensor) is not None]
    joined = [(found, join) for found, join in ((products, _product), (sums, _sum)) if len(found) >= _FEW]
    taken = {tensor.name for found, _ in joined for tensor in found}
    rest = [tensor for tensor in tensors if tensor.name not in taken]
    return _by_halves([join(found) for found, join in joined] + rest)


def _by_halves(tensors: Sequence[Expr]) -> Expr:
    if len(tensors) <= _FEW:
        return add_all(tensors)
    middle = len(tensors) // 2
    return _by_halves(tensors[:middle]) + _by_halves(tensors[middle:])


def _is_product(tensor: Expr) -> bool:
    node = tensor.builder.producer(tensor.name)
    return node is not None and node.op == "MatMul" and all(t.rank == 2 for t in _operands(tensor))


def _operands(tensor: Expr) -> list[Expr]:
    node = tensor.builder.producer(tensor.name)
    return [Expr(tensor.builder, name) for name in node.inputs] if node else []


def _product(products: Sequence[Expr]) -> Expr:
    left, right = zip(*(_operands(product) for product in products), strict=True)
    turned = [_transposed_from(tensor) for tensor in left]
    if all(tensor is not None for tensor in turned):
        rows = concat([tensor for tensor in turned if tensor is not None], axis=0).swap_last()
    else:
        rows = concat(left, axis=1)
    return rows @ concat(right, axis=0)


def _transposed_from(tensor: Expr) -> Expr | None:
    """What a transposed matrix was made from; of a constant, its transpose."""
    node = tensor.builder.producer(tensor.name)
    if tensor.value is not None:
        return tensor.constant(np.ascontiguousarray(tensor.value.T))
    return Expr(tensor.builder, node.inputs[0]) if node is not None and node.op == "Transpose" else None


def _sum(sums: Sequence[Expr]) -> Expr:
    rows = [_summed(tensor) for tensor in sums]
    joined = concat([tensor for tensor in rows if tensor is not None], axis=0)
    return joined.sum([0], keepdims=True).reshape(sums[0].shape)


def _summed(tensor: Expr) -> Expr | None:
    """The matrix whose rows this tensor is the sum of, in whatever shape."""
    node = tensor.builder.producer(tensor.name)
    if node is not None and node.op == "Reshape":
        node = tensor.builder.producer(node.inputs[0])
    if node is None or node.op != "ReduceSum" or len(node.inputs) != 2:
        return None
    matrix, axes = (Expr(tensor.builder, name) for name in node.inputs)
    rows = matrix.rank == 2 and axes.value is not None and axes.value.tolist() == [0]
    return matrix if rows else None
