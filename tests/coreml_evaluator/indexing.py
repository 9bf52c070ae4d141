# SPDX-License-Identifier: Apache-2.0
"""Gathers and scatters of MIL.

Since iOS 17 an index below zero is out of bounds; what then happens is undefined unless it is validated, so
it is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused
from tests.coreml_evaluator.registry import op

_IOS17 = 7
_ACCUMULATE: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def _checked(indices: Array, size: int, opset: int) -> Array:
    lowest = 0 if opset >= _IOS17 else -size
    if indices.size and (indices.min() < lowest or indices.max() >= size):
        raise Refused(f"indices {indices.min()} to {indices.max()} for a size of {size}")
    return np.where(indices < 0, indices + size, indices).astype(np.int64)


@op("gather", constant="axis batch_dims validate_indices", same="", opset=True)
def gather(
    x: Array,
    indices: Array,
    opset: int,
    axis: Array | int = 0,
    batch_dims: Array | int = 0,
    validate_indices: bool = False,
) -> Array:
    along, batch = int(axis) % x.ndim, int(batch_dims)
    places = _checked(indices, x.shape[along], opset)
    if not batch:
        return np.take(x, places, along)
    pairs = zip(x.reshape(-1, *x.shape[batch:]), places.reshape(-1, *places.shape[batch:]), strict=True)
    rows = [np.take(a, i, along - batch) for a, i in pairs]
    return np.stack(rows).reshape(*x.shape[:batch], *rows[0].shape)


@op("gather_along_axis", constant="axis validate_indices", same="", opset=True)
def gather_along_axis(
    x: Array, indices: Array, opset: int, axis: Array | int = 0, validate_indices: bool = False
) -> Array:
    return np.take_along_axis(x, _checked(indices, x.shape[int(axis)], opset), int(axis))


@op("gather_nd", constant="batch_dims validate_indices", same="", opset=True)
def gather_nd(
    x: Array, indices: Array, opset: int, batch_dims: Array | int = 0, validate_indices: bool = False
) -> Array:
    if int(batch_dims):
        parts = [gather_nd(a, i, opset, int(batch_dims) - 1) for a, i in zip(x, indices, strict=True)]
        return np.stack(parts)
    return np.asarray(x[_columns(x, indices, opset)])


@op("scatter", constant="axis mode validate_indices", same="data updates", opset=True)
def scatter(
    data: Array,
    indices: Array,
    updates: Array,
    opset: int,
    axis: Array | int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Array:
    along = int(axis) % data.ndim
    places = _checked(indices, data.shape[along], opset)
    return _put(data, (*[slice(None)] * along, places), updates, mode)


@op("scatter_along_axis", constant="axis mode validate_indices", same="data updates", opset=True)
def scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    opset: int,
    axis: Array | int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Array:
    along = int(axis) % data.ndim
    where: list[Array] = list(np.indices(indices.shape))
    where[along] = _checked(indices, data.shape[along], opset)
    return _put(data, tuple(where), updates, mode)


@op("scatter_nd", constant="mode validate_indices", same="data updates", opset=True)
def scatter_nd(
    data: Array, indices: Array, updates: Array, opset: int, mode: str = "add", validate_indices: bool = False
) -> Array:
    return _put(data, _columns(data, indices, opset), updates, mode)


def _columns(x: Array, indices: Array, opset: int) -> tuple[Array, ...]:
    return tuple(_checked(indices[..., i], x.shape[i], opset) for i in range(indices.shape[-1]))


def _put(data: Array, where: tuple[Any, ...], updates: Array, mode: str) -> Array:
    result = data.copy()
    if result[where].shape != updates.shape:
        raise Refused(f"updates of shape {updates.shape} for {result[where].shape}")
    if mode == "update":
        result[where] = updates
    elif mode in _ACCUMULATE:
        _ACCUMULATE[mode].at(result, where, updates)
    else:
        raise Refused(f"scatter mode {mode!r}")
    return result
