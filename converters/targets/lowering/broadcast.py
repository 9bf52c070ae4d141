# SPDX-License-Identifier: Apache-2.0
"""Element-wise application of TensorFlow functions in whatever layout the operands share.

Interpreters broadcast over four axes at most (tflite-runtime 2.14 aborts above that), so neighbouring axes
that broadcast alike are merged first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.value import Lazy, arranged, common_order, kept, reshape, widened

MAX_BROADCAST_RANK = 4
_MOST_ONES = 1 << 14  # they are stored


def elementwise(function: Callable[..., Any], *values: Lazy) -> Lazy:
    """Apply a broadcasting function; the result is in the layout most of the data is in already."""
    rank = max(value.rank for value in values)
    wide = [widened(value, rank) for value in values]
    order = common_order(wide, rank)
    shape = np.broadcast_shapes(*(value.shape for value in wide))
    physical = [0] * rank
    for axis, place in enumerate(order):
        physical[place] = shape[axis]
    operands = map(kept, _fit([arranged(value, order) for value in wide], tuple(physical)))
    return Lazy(reshape(function(*operands), physical), order)


def spread(data: Any, shape: Sequence[int]) -> Any:
    """Broadcast to a shape of the same rank."""
    if [int(n) for n in data.shape] == list(shape):
        return data
    groups = _alike([data], shape)
    if len(groups) > MAX_BROADCAST_RANK:
        return spread(_grown(data, shape), shape)
    small = reshape(data, [_product(data.shape, group) for group in groups])
    return reshape(_filled(small, [_product(shape, group) for group in groups]), shape)


def _filled(data: Any, shape: Sequence[int]) -> Any:
    """As BROADCAST_TO; floats by a product with ones, which engines do at a hundred times the speed."""
    missing = [n if int(held) == 1 else 1 for held, n in zip(data.shape, shape, strict=True)]
    if data.dtype != tf.float32 or np.prod(missing, dtype=np.int64) > _MOST_ONES:
        return tf.broadcast_to(data, shape)
    return data * np.ones(missing, np.float32)


def _grown(data: Any, shape: Sequence[int]) -> Any:
    """The data with its last axis that has to grow at full length."""
    held = [int(n) for n in data.shape]
    axis = max(a for a, n in enumerate(shape) if held[a] != n)
    outer, inner = _product(held, range(axis)), _product(held, range(axis + 1, len(held)))
    wide = _filled(reshape(data, (outer, 1, inner)), (outer, shape[axis], inner))
    return reshape(wide, [*held[:axis], shape[axis], *held[axis + 1 :]])


def _fit(operands: list[Any], shape: tuple[int, ...]) -> list[Any]:
    """The operands on at most four axes where they have to be broadcast, unchanged where they need not."""
    same = all(tuple(operand.shape) == shape for operand in operands)
    if same or len(shape) <= MAX_BROADCAST_RANK:
        return operands
    groups = _alike(operands, shape)
    if len(groups) > MAX_BROADCAST_RANK:
        return [reshape(spread(operand, shape), [-1]) for operand in operands]
    return [reshape(operand, [_product(operand.shape, group) for group in groups]) for operand in operands]


def _alike(operands: Sequence[Any], shape: Sequence[int]) -> list[list[int]]:
    """Runs of neighbouring axes along which each operand is either full or of length one."""
    groups: list[list[int]] = []
    patterns: list[tuple[bool, ...]] = []
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        pattern = tuple(int(operand.shape[axis]) == length for operand in operands)
        if patterns and patterns[-1] == pattern:
            groups[-1].append(axis)
        else:
            groups.append([axis])
            patterns.append(pattern)
    return groups


def _product(shape: Sequence[int], axes: Sequence[int]) -> int:
    return int(np.prod([int(shape[axis]) for axis in axes], dtype=np.int64))
