# SPDX-License-Identifier: Apache-2.0
"""Functions of several tensors that broadcast, on at most five axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.border import MAX_RANK
from edgefl.converters.targets.coreml.lowering.value import Shape, Value, ints, merged, reshape


def elementwise(function: Callable[..., Any], *values: Value, kind: str = "") -> Value:
    """Apply a broadcasting function; the result's kind is the last operand's unless given."""
    shape = np.broadcast_shapes(*(value.shape for value in values))
    made = function(*_operands(values, shape))
    return Value(made, shape, kind or values[-1].kind)


def _operands(values: Sequence[Value], shape: Shape) -> list[Any]:
    full = [value for value in values if value.shape == shape and not value.is_constant]
    scalar = [value.size == 1 for value in values]
    if full and all(v.shape == shape or s for v, s in zip(values, scalar, strict=True)):
        held = full[0].held  # no axis broadcasts: any shape does, and one that is held costs nothing
        return [
            v.at(1) if s and v.shape != shape else v.at(*held) for v, s in zip(values, scalar, strict=True)
        ]
    if len(shape) <= MAX_RANK:
        return [_widened(value, len(shape)) for value in values]
    return _few_axes(values, shape)


def _widened(value: Value, rank: int) -> Any:
    """Constants get the axes broadcasting adds; for variables Core ML adds them."""
    wide = (1,) * (rank - value.rank) + value.shape
    return value.at(*wide) if value.is_constant and wide else value.plain()


def _few_axes(values: Sequence[Value], shape: Shape) -> list[Any]:
    wide = [(1,) * (len(shape) - value.rank) + value.shape for value in values]
    groups = _alike(wide, shape)
    if len(groups) > MAX_RANK:
        return [spread(value, shape).at(-1) for value in values]
    return [value.at(*merged(w, groups)) for value, w in zip(values, wide, strict=True)]


def _alike(wide: Sequence[Shape], shape: Shape) -> list[list[int]]:
    """Runs of neighbouring axes along which each operand is either full or of length one."""
    groups: list[list[int]] = []
    patterns: list[tuple[bool, ...]] = []
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        pattern = tuple(operand[axis] == length for operand in wide)
        if patterns and patterns[-1] == pattern:
            groups[-1].append(axis)
        else:
            groups.append([axis])
            patterns.append(pattern)
    return groups


def spread(value: Value, shape: Sequence[int]) -> Value:
    """Broadcast to a shape."""
    target = tuple(int(n) for n in shape)
    if value.shape == target:
        return value
    wide = (1,) * (len(target) - value.rank) + value.shape
    if value.is_constant:
        return value.become(np.ascontiguousarray(np.broadcast_to(value.data.reshape(wide), target)), target)
    groups = _alike([wide], target)
    if len(groups) > MAX_RANK:
        axis = max(a for a, n in enumerate(target) if wide[a] != n)
        return spread(_grown(value, wide, axis, target[axis]), target)
    small, large = merged(wide, groups), merged(target, groups)
    repeats = [b // a for a, b in zip(small, large, strict=True)]
    data = value.at(*small)
    return value.become(data if set(repeats) == {1} else mb.tile(x=data, reps=ints(repeats)), target)


def _grown(value: Value, wide: Shape, axis: int, length: int) -> Value:
    """The value with one axis at full length."""
    outer, inner = int(np.prod(wide[:axis])), int(np.prod(wide[axis + 1 :]))
    data = mb.tile(x=reshape(value.data, (outer, 1, inner)), reps=ints((1, length, 1)))
    return value.become(data, (*wide[:axis], length, *wide[axis + 1 :]))
