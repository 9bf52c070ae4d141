# SPDX-License-Identifier: Apache-2.0
"""Pools over the spatial axes of `[N, C, spatial...]`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgefl.graph.kernels.arguments import integer, integers, required
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.kernels.windows import Windows, pad_spatial, windows
from edgefl.graph.model import Array


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _geometry(x: Array, attributes: Attributes) -> Windows:
    if x.ndim < 3:
        raise ValueError(f"pools take [N, C, spatial...], given rank {x.ndim}")
    return windows(x.shape, integers(attributes, "kernel_shape", ()), attributes)


def _over_windows(padded: Array, geometry: Windows, combine: Callable[..., Any]) -> Array:
    out: Array | None = None
    for tap in geometry.taps():
        out = padded[tap].copy() if out is None else combine(out, padded[tap], out=out)
    assert out is not None
    return out


@kernel("MaxPool", batchwise=True)
def max_pool(inputs: Inputs, attributes: Attributes) -> Outputs:
    x = required(inputs)
    geometry = _geometry(x, attributes)
    return (_over_windows(pad_spatial(x, geometry, _lowest(x.dtype)), geometry, np.maximum),)


@kernel("MaxPool", full=True)
def max_pool_with_indices(inputs: Inputs, attributes: Attributes) -> Outputs:
    """The pool and, as int64, the flat index into the input of each window's first maximum."""
    x = required(inputs)
    geometry = _geometry(x, attributes)
    padded = pad_spatial(x, geometry, _lowest(x.dtype))
    places = pad_spatial(_flat_indices(x.shape, integer(attributes, "storage_order", 0)), geometry, -1)
    best, index = None, None
    for tap in geometry.taps():
        if best is None or index is None:
            best, index = padded[tap].copy(), places[tap].copy()
            continue
        better = padded[tap] > best
        np.copyto(best, padded[tap], where=better)
        np.copyto(index, places[tap], where=better)
    assert best is not None and index is not None
    return best, index


def _flat_indices(shape: tuple[int, ...], column_major: int) -> Array:
    spatial = np.arange(math.prod(shape[2:])).reshape(shape[2:], order="F" if column_major else "C")
    images = np.arange(math.prod(shape[:2])).reshape(*shape[:2], *(1,) * spatial.ndim) * spatial.size
    return np.asarray(images + spatial, np.int64)


@kernel("AveragePool", batchwise=True)
def average_pool(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Mean over each window; padding counts if `count_include_pad` is 1, an overhang of ceil_mode never."""
    x = required(inputs)
    geometry = _geometry(x, attributes)
    total = _over_windows(pad_spatial(x, geometry, 0), geometry, np.add)
    return (np.asarray(total / _counts(x, geometry, attributes), x.dtype),)


def _counts(x: Array, geometry: Windows, attributes: Attributes) -> Array:
    """Elements that count in each window, `[1, 1, out...]`."""
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    mask = pad_spatial(ones, geometry, 0)
    if integer(attributes, "count_include_pad", 0):
        rank = x.ndim - 2
        pads = integers(attributes, "pads", geometry.before + geometry.after)[rank:]
        inside = tuple(slice(b + n + a) for b, n, a in zip(geometry.before, x.shape[2:], pads, strict=True))
        mask[(slice(None), slice(None), *inside)] = 1
    return _over_windows(mask, geometry, np.add)


@kernel("LpPool")
def lp_pool(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, p = required(inputs), integer(attributes, "p", 2)
    geometry = _geometry(x, attributes)
    total = _over_windows(pad_spatial(np.abs(x) ** p, geometry, 0), geometry, np.add)
    return (np.asarray(total ** x.dtype.type(1 / p), x.dtype),)


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


@kernel("GlobalAveragePool")
def global_average_pool(inputs: Inputs, attributes: Attributes) -> Outputs:
    x = required(inputs)
    return (np.asarray(np.mean(x, axis=_spatial(x), keepdims=True), x.dtype),)


@kernel("GlobalMaxPool")
def global_max_pool(inputs: Inputs, attributes: Attributes) -> Outputs:
    x = required(inputs)
    return (np.asarray(np.max(x, axis=_spatial(x), keepdims=True)),)
