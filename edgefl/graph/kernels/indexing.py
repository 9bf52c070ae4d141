# SPDX-License-Identifier: Apache-2.0
"""Reading and writing elements by index."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgefl.graph.kernels.arguments import axis_of, integer, ints_of, optional, required, same_dtype, text
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array

_REDUCTIONS: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@kernel("Slice")
def slice_of(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, starts, ends = required(inputs), ints_of(required(inputs, 1)), ints_of(required(inputs, 2))
    axes, steps = optional(inputs, 3), optional(inputs, 4)
    places = tuple(range(len(starts))) if axes is None else ints_of(axes)
    strides = (1,) * len(starts) if steps is None else ints_of(steps)
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(places, starts, ends, strides, strict=True):
        where[axis_of(axis, x.ndim)] = slice(start, end, step)
    return (x[tuple(where)],)


def _checked(indices: Array, size: int) -> Array:
    """Indices with negative ones counted from the end; raises IndexError when one is out of range."""
    indices = indices.astype(np.int64, copy=False)
    if indices.size and not (-size <= indices.min() and indices.max() < size):
        raise IndexError(f"indices from {indices.min()} to {indices.max()} for a dimension of {size}")
    return np.where(indices < 0, indices + size, indices).astype(np.intp, copy=False)


@kernel("Gather")
def gather(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, indices = required(inputs), required(inputs, 1)
    axis = axis_of(integer(attributes, "axis", 0), x.ndim)
    return (np.asarray(np.take(x, _checked(indices, x.shape[axis]), axis)),)


@kernel("GatherElements")
def gather_elements(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, indices = required(inputs), required(inputs, 1)
    axis = axis_of(integer(attributes, "axis", 0), x.ndim)
    return (x[_along(_checked(indices, x.shape[axis]), axis)],)


def _along(indices: Array, axis: int) -> tuple[Any, ...]:
    """An index that takes `indices` on one axis and each element's own place on the others."""
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = indices
    return tuple(grid)


@kernel("GatherND")
def gather_nd(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Slices at the index tuples of the last dimension, after `batch_dims` shared leading dimensions."""
    x, indices = required(inputs), required(inputs, 1)
    batch = integer(attributes, "batch_dims", 0)
    lead = x.shape[:batch]
    flat = x.reshape(math.prod(lead), *x.shape[batch:])
    tuples = indices.reshape(math.prod(lead), -1, indices.shape[-1])
    where = [
        _checked(tuples[..., i], n) for i, n in zip(range(tuples.shape[-1]), flat.shape[1:], strict=False)
    ]
    rows = np.arange(flat.shape[0]).reshape(-1, 1)
    tail = x.shape[batch + indices.shape[-1] :]
    return (flat[(rows, *where)].reshape(*indices.shape[:-1], *tail),)


def _write(out: Array, where: tuple[Any, ...], updates: Array, attributes: Attributes) -> Array:
    reduction = text(attributes, "reduction", "none")
    if reduction == "none":
        out[where] = updates
    elif reduction in _REDUCTIONS:
        _REDUCTIONS[reduction].at(out, where, updates)
    else:
        raise ValueError(f"reduction {reduction!r} is none of none, {', '.join(_REDUCTIONS)}")
    return out


@kernel("ScatterElements")
def scatter_elements(inputs: Inputs, attributes: Attributes) -> Outputs:
    """A copy of the data with updates written or accumulated along an axis."""
    x, indices, updates = required(inputs), required(inputs, 1), required(inputs, 2)
    same_dtype(x, updates)
    axis = axis_of(integer(attributes, "axis", 0), x.ndim)
    where = _along(_checked(indices, x.shape[axis]), axis)
    return (_write(np.array(x, order="C"), where, updates, attributes),)


@kernel("ScatterND")
def scatter_nd(inputs: Inputs, attributes: Attributes) -> Outputs:
    """A copy of the data with slices written or accumulated at index tuples."""
    x, indices, updates = required(inputs), required(inputs, 1), required(inputs, 2)
    same_dtype(x, updates)
    where = tuple(
        _checked(indices[..., i], n) for i, n in zip(range(indices.shape[-1]), x.shape, strict=False)
    )
    return (_write(np.array(x, order="C"), where, updates, attributes),)


@kernel("OneHot")
def one_hot(inputs: Inputs, attributes: Attributes) -> Outputs:
    """`[off, on]` values with a new axis of `depth`; an index outside `[-depth, depth)` is all off."""
    indices, depth, values = required(inputs), int(required(inputs, 1).reshape(-1)[0]), required(inputs, 2)
    axis = axis_of(integer(attributes, "axis", -1), indices.ndim + 1)
    wrapped = np.where(indices < 0, indices + indices.dtype.type(depth), indices)
    places = np.arange(depth).reshape(-1, *(1,) * (indices.ndim - axis))
    return (np.where(np.expand_dims(wrapped, axis) == places, values[1], values[0]),)


@kernel("NonZero")
def non_zero(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Indices `[rank, count]` of the elements that are not zero; the shape depends on the values."""
    return (np.array(np.nonzero(np.atleast_1d(required(inputs))), np.int64),)


@kernel("Unique")
def unique(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Values that differ, where each occurs first, which of them each is, and how often it occurs."""
    x = required(inputs)
    axis = integer(attributes, "axis", 0) if "axis" in attributes else None
    values, first, which, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )
    which = np.reshape(which, -1)
    if not integer(attributes, "sorted", 1):
        order = np.argsort(first)
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        which = np.argsort(order)[which]
    return values, *(np.asarray(a, np.int64) for a in (first, which, counts))


@kernel("Compress")
def compress(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Elements where a vector of booleans is true; the shape depends on the values."""
    x, condition = required(inputs), required(inputs, 1)
    axis = integer(attributes, "axis", 0) if "axis" in attributes else None
    return (np.compress(condition, x, axis),)
