# SPDX-License-Identifier: Apache-2.0
"""Tensors whose layout is decided late.

A value knows the order its axes have in memory. Transposing it changes only that order; data moves when an
operator insists on a layout, and then only if axes longer than one really change places.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

Order = tuple[int, ...]
_HELD: WeakKeyDictionary[Any, dict[tuple[str, tuple[int, ...], bytes], Any]] = WeakKeyDictionary()
_SMALL = 1 << 10  # elements of a constant worth looking up


@dataclass(frozen=True, eq=False)
class Lazy:
    """A tensor held in some axis order.

    Attributes:
        data: a TensorFlow tensor, or a NumPy array for constants.
        order: logical axis i is axis `order[i]` of `data`.
    """

    data: Any
    order: Order

    @staticmethod
    def plain(data: Any) -> Lazy:
        """Data whose axes are in logical order."""
        return Lazy(data, tuple(range(len(data.shape))))

    @property
    def rank(self) -> int:
        return len(self.order)

    @property
    def physical(self) -> tuple[int, ...]:
        """Shape in memory."""
        return tuple(int(n) for n in self.data.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as the graph sees it."""
        physical = self.physical
        return tuple(physical[axis] for axis in self.order)

    @property
    def size(self) -> int:
        return int(np.prod(self.physical, dtype=np.int64))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type as NumPy names it."""
        return np.dtype(getattr(self.data.dtype, "as_numpy_dtype", self.data.dtype))

    def transposed(self, permutation: Sequence[int]) -> Lazy:
        """Logical transpose; moves no data."""
        return Lazy(self.data, tuple(self.order[axis] for axis in permutation))

    def inverse(self) -> Order:
        """Logical axis held by each axis of `data`."""
        return tuple(self.order.index(axis) for axis in range(self.rank))

    def axis(self, logical: int) -> int:
        """Axis of `data` holding a logical axis (which may be negative)."""
        return self.order[logical]


def arranged(value: Lazy, order: Order) -> Any:
    """The data of a value with logical axis i at axis `order[i]`."""
    if value.order == order:
        return value.data
    holder = tuple(order.index(axis) for axis in range(len(order)))
    return permute(value.data, tuple(value.order[logical] for logical in holder))


def logical(value: Lazy) -> Any:
    """The data of a value with its axes in logical order."""
    return arranged(value, tuple(range(value.rank)))


def trailing(value: Lazy, *axes: int) -> Lazy:
    """The value laid out so that the given logical axes come last, in that order, and the rest stays put."""
    last = [axis % value.rank for axis in axes]
    holder = [axis for axis in value.inverse() if axis not in last] + last
    order = tuple(holder.index(axis) for axis in range(value.rank))
    return Lazy(arranged(value, order), order)


def permute(data: Any, permutation: Order) -> Any:
    """Transpose: a reshape when only axes of length one move, and on as few axes as possible otherwise."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data.transpose(permutation))
    shape = [int(n) for n in data.shape]
    target = [shape[axis] for axis in permutation]
    moved = [axis for axis in permutation if shape[axis] != 1]
    if moved == sorted(moved):
        return reshape(data, target)
    runs = _runs(moved)
    sources = sorted(runs)
    merged = reshape(data, [int(np.prod([shape[axis] for axis in run])) for run in sources])
    return reshape(tf.transpose(merged, [sources.index(run) for run in runs]), target)


def _runs(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Group axes that stay neighbours in both orders."""
    present = sorted(axes)
    runs: list[tuple[int, ...]] = []
    for axis in axes:
        follows = bool(runs) and present.index(axis) == present.index(runs[-1][-1]) + 1
        runs = [*runs[:-1], (*runs[-1], axis)] if follows else [*runs, (axis,)]
    return runs


def reshape(data: Any, shape: Iterable[int]) -> Any:
    """Reshape; nothing when the shape is right already."""
    wanted, had = [int(n) for n in shape], [int(n) for n in data.shape]
    if -1 in wanted and 0 not in wanted:
        wanted[wanted.index(-1)] = math.prod(had) // -math.prod(wanted)
    if had == wanted:
        return data
    return data.reshape(wanted) if isinstance(data, np.ndarray) else tf.reshape(data, held(wanted))


def held(numbers: Sequence[int]) -> Any:
    """Numbers that an operator takes as a tensor: one constant for equal ones of a graph."""
    return kept(np.asarray(numbers, np.int32))


def kept(data: Any) -> Any:
    """The data as a tensor: one constant for equal small arrays of a graph, which become the graph's.

    Making a constant takes TensorFlow as long as making the operator that reads it.
    """
    if not isinstance(data, np.ndarray):
        return data
    if data.size > _SMALL:
        return tf.constant(data)
    known = _HELD.setdefault(tf.compat.v1.get_default_graph(), {})
    key = (data.dtype.str, data.shape, data.tobytes())
    if key not in known:
        known[key] = tf.constant(data)
    return known[key]


def common_order(values: Sequence[Lazy], rank: int) -> Order:
    """The order that most elements of the values of this rank are in; a changed order wins a draw."""
    plain = tuple(range(rank))
    weight: dict[Order, int] = {}
    for value in values:
        if value.rank == rank and not isinstance(value.data, np.ndarray):
            weight[value.order] = weight.get(value.order, 0) + value.size
    return max(weight, key=lambda order: (weight[order], order != plain, order), default=plain)


def widened(value: Lazy, rank: int) -> Lazy:
    """The value with axes of length one added in front, as broadcasting does."""
    extra = rank - value.rank
    data = reshape(value.data, (1,) * extra + value.physical)
    return Lazy(data, (*range(extra), *(axis + extra for axis in value.order)))


def regrouped(value: Lazy, shape: Sequence[int]) -> Lazy:
    """Reshape in logical order, keeping the order in memory where the axes split and merge in place."""
    if 0 in shape:
        return Lazy.plain(reshape(value.data, shape))
    groups = sorted(_groups(value.shape, shape), key=lambda group: value.order[group[0][0]])
    places = [value.order[axis] for old, _ in groups for axis in old]
    if places != sorted(places) or not all(_consecutive(value, old) for old, _ in groups):
        return Lazy.plain(reshape(logical(value), shape))
    holder = _with_ones([axis for _, new in groups for axis in new], shape)
    data = reshape(value.data, [shape[axis] for axis in holder])
    return Lazy(data, tuple(holder.index(axis) for axis in range(len(shape))))


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes of equal length in both shapes, leaving out axes of length one."""
    groups: list[tuple[list[int], list[int]]] = []
    left = [axis for axis, n in enumerate(old) if n != 1]
    right = [axis for axis, n in enumerate(new) if n != 1]
    while left and right:
        a, b = [left.pop(0)], [right.pop(0)]
        while (x := _length(old, a)) != (y := _length(new, b)):
            (a if x < y else b).append((left if x < y else right).pop(0))
        groups.append((a, b))
    return groups


def _with_ones(holder: list[int], shape: Sequence[int]) -> list[int]:
    """Axes of length one put behind the axis they follow logically, so that joins along them are in place."""
    for axis, n in enumerate(shape):
        if n == 1:
            holder.insert(holder.index(axis - 1) + 1 if axis else 0, axis)
    return holder


def _consecutive(value: Lazy, axes: Sequence[int]) -> bool:
    """Whether these logical axes follow one another in memory, not counting axes of length one."""
    places = [value.order[axis] for axis in axes]
    between = range(places[0], places[-1])
    return places == sorted(places) and all(p in places or value.physical[p] == 1 for p in between)


def _length(shape: Sequence[int], axes: Sequence[int]) -> int:
    return int(np.prod([shape[axis] for axis in axes], dtype=np.int64))
