# SPDX-License-Identifier: Apache-2.0
"""Tensors whose shape is decided late.

A value knows the shape the graph sees; what Core ML holds has the same elements in the same order and any
shape of one to five axes, which is all Core ML knows. Reshaping a value moves nothing: an operator that
insists on a shape asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.border import MAX_RANK
from edgefl.graph import Array

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor.

    Attributes:
        data: a variable of the program, or a NumPy array for constants.
        shape: the shape the graph sees.
        kind: NumPy's letter for the kind of element: `f`, `i` or `b`.
    """

    data: Any
    shape: Shape
    kind: str

    @staticmethod
    def constant(array: Array) -> Value:
        """A constant, with 64-bit integers in 32 bits and every float as float32."""
        held = array
        if array.dtype.kind in "iu":
            limits = np.iinfo(np.int32)
            held = np.clip(array, limits.min, limits.max).astype(np.int32)
        elif array.dtype.kind == "f":
            held = array.astype(np.float32)
        return Value(np.ascontiguousarray(held), tuple(array.shape), held.dtype.kind)

    @property
    def is_constant(self) -> bool:
        return isinstance(self.data, np.ndarray)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return count(self.shape)

    @property
    def held(self) -> Shape:
        """Shape of what Core ML holds."""
        return tuple(int(n) for n in self.data.shape)

    def at(self, *shape: int) -> Any:
        """The data in a shape of the same number of elements."""
        return reshape(self.data, shape)

    def plain(self) -> Any:
        """The data in the shape the graph sees; a scalar has one axis."""
        return self.at(*(self.shape or (1,)))

    def become(self, data: Any, shape: Sequence[int]) -> Value:
        """Another tensor of the same kind of elements."""
        return Value(data, tuple(int(n) for n in shape), self.kind)


def count(shape: Sequence[int]) -> int:
    """Number of elements."""
    return int(np.prod(shape, dtype=np.int64))


def reshape(data: Any, shape: Sequence[int]) -> Any:
    """Reshape; nothing when the shape is right already."""
    wanted = tuple(int(n) for n in shape)
    if tuple(int(n) for n in data.shape) == wanted:
        return data
    return data.reshape(wanted) if isinstance(data, np.ndarray) else mb.reshape(x=data, shape=ints(wanted))


def ints(values: Sequence[int]) -> Array:
    """A vector as Core ML's operators take it."""
    return np.array(list(values), np.int32)


def transposed(data: Any, shape: Sequence[int], permutation: Sequence[int]) -> Any:
    """The data, read in a shape of any rank, transposed: a reshape when only axes of length one move.

    Above five axes neighbours that stay together are moved as one.
    """
    target = [shape[axis] for axis in permutation]
    moved = [axis for axis in permutation if shape[axis] != 1]
    runs = _runs(moved)
    sources = sorted(runs)
    if runs == sources:
        return data if len(target) > MAX_RANK else reshape(data, target or (1,))
    if len(target) <= MAX_RANK:
        return mb.transpose(x=reshape(data, shape), perm=ints(permutation))
    sizes = [count([shape[axis] for axis in run]) for run in sources]
    order = [sources.index(run) for run in runs]
    if len(runs) <= MAX_RANK:
        made = mb.transpose(x=reshape(data, sizes), perm=ints(order))
    else:
        made = _one_by_one(data, sizes, order)
    return made if len(target) > MAX_RANK else reshape(made, target)


def _one_by_one(data: Any, sizes: list[int], order: list[int]) -> Any:
    """A transpose of many axes by moving one axis after the other to the front."""
    present, lengths = list(range(len(sizes))), list(sizes)
    for axis in reversed(order):
        place = present.index(axis)
        parts = (count(lengths[:place]), lengths[place], count(lengths[place + 1 :]))
        data = mb.transpose(x=reshape(data, parts), perm=ints((1, 0, 2)))
        present.insert(0, present.pop(place))
        lengths.insert(0, lengths.pop(place))
    return data


def _runs(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Group axes that stay neighbours in both orders."""
    present = sorted(axes)
    runs: list[tuple[int, ...]] = []
    for axis in axes:
        follows = bool(runs) and present.index(axis) == present.index(runs[-1][-1]) + 1
        runs = [*runs[:-1], (*runs[-1], axis)] if follows else [*runs, (axis,)]
    return runs


def neighbours(mergeable: Sequence[bool]) -> list[list[int]]:
    """Axes in runs: above five axes neighbours that may be merged together, every other axis alone."""
    if len(mergeable) <= MAX_RANK:
        return [[axis] for axis in range(len(mergeable))]
    runs: list[list[int]] = []
    for axis, free in enumerate(mergeable):
        if free and runs and mergeable[axis - 1]:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def merged(shape: Sequence[int], runs: Sequence[Sequence[int]]) -> Shape:
    """The shape with each run of axes as one."""
    return tuple(count([shape[axis] for axis in run]) for run in runs) or (1,)
