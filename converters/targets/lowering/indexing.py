# SPDX-License-Identifier: Apache-2.0
"""Reading and writing at indices that may be known only at run time."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.registry import Call, lowering
from edgefl.converters.targets.lowering.value import Lazy, logical, reshape


def from_front(indices: Any, length: Any) -> Any:
    """Indices with those that count from the end made non-negative."""
    if isinstance(indices, np.ndarray):
        return (indices % length).astype(np.int32)
    return tf.math.floormod(indices, np.asarray(length, np.int32))


@lowering("Gather")
def _gather(call: Call) -> Lazy:
    """Rows along one axis; the axes of the indices take the place of that axis."""
    value, axis = call[0], int(call.attribute("axis", 0)) % call[0].rank
    indices = from_front(logical(call[1]), value.shape[axis])
    place, rank = value.axis(axis), len(indices.shape)
    shift = [p + (rank - 1) * (p > place) for p in value.order]
    order = (*shift[:axis], *range(place, place + rank), *shift[axis + 1 :])
    return Lazy(tf.gather(value.data, indices, axis=place), order)


@lowering("GatherElements")
def _gather_elements(call: Call) -> Lazy:
    flat = reshape(logical(call[0]), (-1,))
    return Lazy.plain(tf.gather(flat, _flat_places(call)))


@lowering("GatherND")
def _gather_nd(call: Call) -> Lazy:
    if call.attribute("batch_dims", 0):
        raise call.refuse("batch_dims other than 0")
    data = logical(call[0])
    indices = from_front(logical(call[1]), data.shape[: call[1].shape[-1]])
    return Lazy.plain(tf.gather_nd(data, indices))


@lowering("ScatterND")
def _scatter_nd(call: Call) -> Lazy:
    shape = call[0].shape
    indices = from_front(logical(call[1]), shape[: call[1].shape[-1]])
    return _written(call, indices, logical(call[2]), shape)


@lowering("ScatterElements")
def _scatter_elements(call: Call) -> Lazy:
    places = reshape(_flat_places(call), (-1, 1))
    return _written(call, places, reshape(logical(call[2]), (-1,)), (call[0].size,))


def _written(call: Call, indices: Any, updates: Any, shape: tuple[int, ...]) -> Lazy:
    """Updates added to the data, or put in its place, at indices into a tensor of the given shape."""
    mode = str(call.attribute("reduction", "none"))
    if mode not in ("none", "add"):
        raise call.refuse(f"reduction {mode!r}; none and add are known")
    spread = tf.scatter_nd(indices, updates, shape)
    if isinstance(call[0].data, np.ndarray) and not call[0].data.any():
        return Lazy.plain(reshape(spread, call.shape))
    data = reshape(logical(call[0]), shape)
    if mode == "none":
        hit = tf.scatter_nd(indices, tf.ones_like(updates), shape)
        return Lazy.plain(reshape(tf.where(tf.equal(hit, tf.zeros((), hit.dtype)), data, spread), call.shape))
    return Lazy.plain(reshape(data + spread, call.shape))


def _flat_places(call: Call) -> Any:
    """Places in the flattened data for indices along one axis, of the indices' shape."""
    shape, axis = call[0].shape, int(call.attribute("axis", 0)) % call[0].rank
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    grid = np.indices(call[1].shape, sparse=True)
    other = sum(grid[a] * strides[a] for a in range(len(shape)) if a != axis)
    base = np.broadcast_to(np.asarray(other, np.int32), call[1].shape)
    return from_front(logical(call[1]), shape[axis]) * np.int32(strides[axis]) + base


@lowering("OneHot")
def _one_hot(call: Call) -> Lazy:
    depth, (off, on) = int(call.constant(1).reshape(())), call.constant(2)
    indices = from_front(tf.cast(logical(call[0]), tf.int32), depth)
    axis = int(call.attribute("axis", -1))
    return Lazy.plain(tf.one_hot(indices, depth, on_value=on, off_value=off, axis=axis))
