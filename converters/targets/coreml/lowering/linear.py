# SPDX-License-Identifier: Apache-2.0
"""Matrix products. A transposed operand is a flag of the product, not a transpose."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.border import MAX_RANK
from edgefl.converters.targets.coreml.lowering.registry import Call, lowering
from edgefl.converters.targets.coreml.lowering.value import Value, count


@lowering("MatMul")
def _matmul(call: Call) -> Value:
    (left, flip_left), (right, flip_right) = _operand(call, 0), _operand(call, 1)
    if left.rank == 1:
        left = left.become(left.data, (1, *left.shape))
    if right.rank == 1:
        right = right.become(right.data, (*right.shape, 1))
    a, b = _batched(left, right, flip_left)
    made = mb.matmul(x=a, y=b, transpose_x=flip_left, transpose_y=flip_right)
    return call[0].become(made, call.shape)


def _operand(call: Call, index: int) -> tuple[Value, bool]:
    """An operand, or what it is the transpose of, with a flag."""
    maker, value = call.maker(index), call[index]
    if maker is None or maker.op != "Transpose" or value.is_constant or value.rank < 2:
        return value, False
    plain = tuple(range(value.rank))
    if tuple(maker.attributes.get("perm", plain[::-1])) != (*plain[:-2], plain[-1], plain[-2]):  # type: ignore[arg-type]
        return value, False
    return call.values[maker.inputs[0]], True


def _batched(left: Value, right: Value, flip_left: bool) -> tuple[Any, Any]:
    """The data: one plain product where the right side has no batch, one batch axis where both agree."""
    a, b = left.shape, right.shape
    if count(b[:-2]) == 1 and (not flip_left or count(a[:-2]) == 1):
        rows = a[-2:] if count(a[:-2]) == 1 else (count(a[:-1]), a[-1])
        return left.at(*rows), right.at(*b[-2:])
    if a[:-2] == b[:-2]:
        return left.at(count(a[:-2]), *a[-2:]), right.at(count(b[:-2]), *b[-2:])
    rank = max(left.rank, right.rank)
    if rank > MAX_RANK:
        return _joint(left, right)
    return left.at(*(1,) * (rank - left.rank), *a), right.at(*(1,) * (rank - right.rank), *b)


def _joint(left: Value, right: Value) -> tuple[Any, Any]:
    """Both with the whole batch as one axis."""
    from edgefl.converters.targets.coreml.lowering.broadcast import spread

    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    both = (spread(value, (*batch, *value.shape[-2:])) for value in (left, right))
    a, b = (value.at(count(batch), *value.shape[-2:]) for value in both)
    return a, b


@lowering("Gemm")
def _gemm(call: Call) -> Value:
    """alpha A' B' + beta C with two axes; a frozen layer is Core ML's own `linear`."""
    alpha, beta = float(call.attribute("alpha", 1.0)), float(call.attribute("beta", 1.0))
    flips = [bool(call.attribute(flag, 0)) for flag in ("transA", "transB")]
    if call[1].is_constant and _is_bias(call) and (alpha, beta) == (1.0, 1.0) and not flips[0]:
        weight = call.constant(1) if flips[1] else np.ascontiguousarray(call.constant(1).T)
        bias = np.broadcast_to(call.constant(2).reshape(-1), weight.shape[:1])
        made = mb.linear(x=call[0].plain(), weight=weight, bias=np.ascontiguousarray(bias))
        return call[0].become(made, call.shape)
    product = mb.matmul(x=call[0].plain(), y=call[1].plain(), transpose_x=flips[0], transpose_y=flips[1])
    if alpha != 1:
        product = mb.mul(x=product, y=np.float32(alpha))
    if call.given(2):
        shift = call[2].plain()
        product = mb.add(x=product, y=shift if beta == 1 else mb.mul(x=shift, y=np.float32(beta)))
    return call[0].become(product, call.shape)


def _is_bias(call: Call) -> bool:
    """Whether the third operand is a constant vector over the columns."""
    if not call.given(2) or not call[2].is_constant:
        return False
    return call[2].size in (1, call.shape[1]) and call[2].shape[-1:] in ((), (1,), (call.shape[1],))
