# SPDX-License-Identifier: Apache-2.0
"""Reading and writing at indices that may be known only at run time, along one axis of flattened data."""

from __future__ import annotations

from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.lowering.broadcast import elementwise
from edgefl.converters.targets.coreml.lowering.elementwise import cast, number
from edgefl.converters.targets.coreml.lowering.registry import Call, lowering
from edgefl.converters.targets.coreml.lowering.shape import pick
from edgefl.converters.targets.coreml.lowering.value import Value, count, ints


def from_front(indices: Any, length: Any) -> Any:
    """Indices with those that count from the end made non-negative: Core ML promises nothing about them."""
    if isinstance(indices, np.ndarray):
        return (indices % length).astype(np.int32)
    size = np.asarray(length, np.int32).reshape(-1)
    ahead = mb.greater_equal(x=indices, y=np.zeros(1, np.int32))
    return mb.select(cond=ahead, a=indices, b=mb.add(x=indices, y=size))


@lowering("Gather")
def _gather(call: Call) -> Value:
    """Rows along one axis; the axes of the indices take the place of that axis."""
    value, axis = call[0], int(call.attribute("axis", 0)) % call[0].rank
    indices = from_front(call[1].at(call[1].size), value.shape[axis])
    made = pick(number(value), axis, indices)
    return cast(made.become(made.data, call.shape), value.kind)


@lowering("GatherElements")
def _gather_elements(call: Call) -> Value:
    return _read(call, 1, _element_places(call))


@lowering("GatherND")
def _gather_nd(call: Call) -> Value:
    if call.attribute("batch_dims", 0):
        raise call.refuse("batch_dims other than 0")
    depth = call[1].shape[-1]
    return _read(call, count(call[0].shape[depth:]), _nd_places(call))


def _read(call: Call, width: int, places: Any) -> Value:
    """Rows of `width` elements at places in the flattened data."""
    value = number(call[0])
    rows = mb.gather(x=value.at(value.size // width, width), indices=places, axis=0)
    return cast(value.become(rows, call.shape), call[0].kind)


@lowering("ScatterND")
def _scatter_nd(call: Call) -> Value:
    depth = call[1].shape[-1]
    return _write(call, count(call[0].shape[depth:]), _nd_places(call))


@lowering("ScatterElements")
def _scatter_elements(call: Call) -> Value:
    return _write(call, 1, _element_places(call))


def _write(call: Call, width: int, places: Any) -> Value:
    """Updates added to the data, or put in its place, in rows of `width` elements."""
    mode = {"none": "update", "add": "add"}.get(str(call.attribute("reduction", "none")))
    if mode is None:
        raise call.refuse(f"reduction {call.attribute('reduction')!r}; none and add are known")
    data, updates = number(call[0]), number(call[2])
    made = mb.scatter(
        data=data.at(data.size // width, width),
        indices=places,
        updates=updates.at(updates.size // width, width),
        axis=0,
        mode=mode,
    )
    return cast(data.become(made, call.shape), call[0].kind)


def _element_places(call: Call) -> Any:
    """Places in the flattened data for indices along one axis, as a vector."""
    shape, indices = call[0].shape, call[1]
    axis = int(call.attribute("axis", 0)) % len(shape)
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    grid = np.indices(indices.shape, sparse=True)
    other = sum(grid[a] * strides[a] for a in range(len(shape)) if a != axis)
    base = np.broadcast_to(np.asarray(other, np.int32), indices.shape).reshape(-1)
    own = from_front(indices.at(indices.size), shape[axis])
    if isinstance(own, np.ndarray):
        return (own * strides[axis] + base).astype(np.int32)
    return mb.add(x=mb.mul(x=own, y=ints((strides[axis],))), y=np.ascontiguousarray(base))


def _nd_places(call: Call) -> Any:
    """Places of rows in the flattened data for vectors of indices, as a vector."""
    depth = call[1].shape[-1]
    lead = call[0].shape[:depth]
    strides = np.cumprod([1, *lead[:0:-1]])[::-1].astype(np.int32)
    own = from_front(call[1].at(call[1].size // depth, depth), np.array(lead))
    if isinstance(own, np.ndarray):
        return (own * strides).sum(1).astype(np.int32)
    total = mb.reduce_sum(x=mb.mul(x=own, y=strides[None]), axes=ints((1,)), keep_dims=False)
    return total


@lowering("OneHot")
def _one_hot(call: Call) -> Value:
    """Indices compared with the places along a new axis."""
    depth, (off, on) = int(call.constant(1).reshape(())), call.constant(2).tolist()
    axis = int(call.attribute("axis", -1)) % len(call.shape)
    kind = call.types[0].dtype.kind
    indices = cast(call[0], "i")
    front = from_front(indices.data, depth)
    column = Value(front, (*indices.shape[:axis], 1, *indices.shape[axis:]), "i")
    places = Value.constant(np.arange(depth).reshape((depth, *(1,) * (len(call.shape) - 1 - axis))))
    hit = cast(elementwise(lambda x, y: mb.equal(x=x, y=y), column, places, kind="b"), kind)
    if (off, on) == (0, 1):
        return hit
    slope, shift = (Value.constant(np.array(v, call.types[0].dtype)) for v in (on - off, off))
    return elementwise(lambda x, m, a: mb.add(x=mb.mul(x=x, y=m), y=a), hit, slope, shift)
