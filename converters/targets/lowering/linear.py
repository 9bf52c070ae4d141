# SPDX-License-Identifier: Apache-2.0
"""Matrix products. A transposed operand is a flag of the product, not a transpose."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from edgefl.converters.targets.lowering.registry import Call, lowering
from edgefl.converters.targets.lowering.value import Lazy, arranged, logical, reshape, widened


@lowering("MatMul")
def _matmul(call: Call) -> Lazy:
    left, right = call[0], call[1]
    if left.rank == 1:
        left = Lazy.plain(reshape(logical(left), (1, *left.shape)))
    if right.rank == 1:
        right = Lazy.plain(reshape(logical(right), (*right.shape, 1)))
    rank = max(left.rank, right.rank)
    left, right = widened(left, rank), widened(right, rank)
    (a, flip_a), (b, flip_b) = _matrix(left), _matrix(right)
    if flip_a and _fewer(right, left):
        # tflite-runtime 2.14 computes all but the first product wrongly when the left side of more products
        # is transposed by a flag.
        a, flip_a = arranged(left, tuple(range(rank))), False
        b = b if all(n == 1 for n in right.shape[:-2]) else _repeated(b, left.shape[:-2])
    a, b = _merge_batch(a, b, flip_a)
    product = tf.matmul(a, b, transpose_a=flip_a, transpose_b=flip_b)
    return Lazy.plain(reshape(product, call.shape))


def _matrix(value: Lazy) -> tuple[Any, bool]:
    """The data with its matrix axes last, and whether they are swapped."""
    plain = tuple(range(value.rank))
    swapped = (*plain[:-2], plain[-1], plain[-2])
    if value.order == swapped:
        return value.data, True
    return arranged(value, plain), False


def _fewer(right: Lazy, left: Lazy) -> bool:
    """Whether one matrix on the right serves several on the left."""
    return any(n == 1 < m for n, m in zip(right.shape[:-2], left.shape[:-2], strict=True))


def _repeated(b: Any, batch: tuple[int, ...]) -> Any:
    """The matrices once for each product: TensorFlow would put the transpose back into a flag."""
    shape = [max(int(n), m) for n, m in zip(b.shape[:-2], batch, strict=True)]
    return tf.broadcast_to(b, (*shape, *b.shape[-2:]))


def _merge_batch(a: Any, b: Any, flip_a: bool) -> tuple[Any, Any]:
    """Drop batch axes where that leaves one plain product, and merge them where both sides have the same."""
    batch_a, batch_b = [int(n) for n in a.shape[:-2]], [int(n) for n in b.shape[:-2]]
    if all(n == 1 for n in batch_b) and not flip_a:
        return reshape(a, (-1, int(a.shape[-1]))), reshape(b, b.shape[-2:])
    if batch_a == batch_b:
        return reshape(a, (-1, *a.shape[-2:])), reshape(b, (-1, *b.shape[-2:]))
    return a, b


@lowering("Gemm")
def _gemm(call: Call) -> Lazy:
    """alpha A' B' + beta C, as normalisation and the int8 export leave it: two axes, C broadcast."""
    left, right = (
        call[i].transposed((1, 0)) if call.attribute(flag, 0) else call[i]
        for i, flag in enumerate(("transA", "transB"))
    )
    (a, flip_a), (b, flip_b) = _matrix(left), _matrix(right)
    product = tf.matmul(a, b, transpose_a=flip_a, transpose_b=flip_b)
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    product = product if alpha == 1 else product * alpha
    if not call.given(2):
        return Lazy.plain(product)
    shift = logical(call[2])
    return Lazy.plain(product + (shift if beta == 1 else shift * beta))
