# SPDX-License-Identifier: Apache-2.0
"""Sums of gradients, with the many small products of an unrolled recurrence made into one."""

from __future__ import annotations

from collections.abc import Sequence

from edgefl.converters.autodiff.expression import Expr, add_all, concat

_FEW = 4  # below it, joining operands costs as much as the products


def total(tensors: Sequence[Expr]) -> Expr:
    """The sum of one or more tensors of one shape.

    A weight used at every step of a sequence has one product `A_t B_t` per step as gradient; their sum is one
    product of the `A_t` side by side with the `B_t` on top of each other.
    """
    products = [tensor for tensor in tensors if _is_product(tensor)]
    if len(products) < _FEW:
        return add_all(tensors)
    rest = [tensor for tensor in tensors if not _is_product(tensor)]
    return add_all([_joined(products), *rest])


def _is_product(tensor: Expr) -> bool:
    node = tensor.builder.producer(tensor.name)
    return node is not None and node.op == "MatMul" and all(t.rank == 2 for t in _operands(tensor))


def _operands(tensor: Expr) -> list[Expr]:
    node = tensor.builder.producer(tensor.name)
    return [Expr(tensor.builder, name) for name in node.inputs] if node else []


def _joined(products: Sequence[Expr]) -> Expr:
    left, right = zip(*(_operands(product) for product in products), strict=True)
    turned = [_transposed_from(tensor) for tensor in left]
    if all(tensor is not None for tensor in turned):
        rows = concat([tensor for tensor in turned if tensor is not None], axis=0).swap_last()
    else:
        rows = concat(left, axis=1)
    return rows @ concat(right, axis=0)


def _transposed_from(tensor: Expr) -> Expr | None:
    """What a transposed matrix was made from."""
    node = tensor.builder.producer(tensor.name)
    return Expr(tensor.builder, node.inputs[0]) if node is not None and node.op == "Transpose" else None
