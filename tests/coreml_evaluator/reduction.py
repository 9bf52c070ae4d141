# SPDX-License-Identifier: Apache-2.0
"""Reductions, orders and normalizations of MIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Unsupported
from tests.coreml_evaluator.registry import ints, op


def _log_sum_exp(x: Array, axis: Any, keepdims: bool) -> Array:
    top = x.max(axis=axis, keepdims=True)
    total = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return np.asarray(total if keepdims else np.squeeze(total, axis))


_REDUCTIONS: dict[str, Callable[[Array, Any, bool], Any]] = {
    "reduce_sum": lambda x, axis, keep: x.sum(axis=axis, keepdims=keep, dtype=x.dtype),
    "reduce_mean": lambda x, axis, keep: x.mean(axis=axis, keepdims=keep, dtype=x.dtype),
    "reduce_max": lambda x, axis, keep: x.max(axis=axis, keepdims=keep),
    "reduce_min": lambda x, axis, keep: x.min(axis=axis, keepdims=keep),
    "reduce_prod": lambda x, axis, keep: x.prod(axis=axis, keepdims=keep, dtype=x.dtype),
    "reduce_l1_norm": lambda x, axis, keep: np.abs(x).sum(axis=axis, keepdims=keep, dtype=x.dtype),
    "reduce_l2_norm": lambda x, axis, keep: np.sqrt(
        np.square(x).sum(axis=axis, keepdims=keep, dtype=x.dtype)
    ),
    "reduce_sum_square": lambda x, axis, keep: np.square(x).sum(axis=axis, keepdims=keep, dtype=x.dtype),
    "reduce_log_sum": lambda x, axis, keep: np.log(x.sum(axis=axis, keepdims=keep, dtype=x.dtype)),
    "reduce_log_sum_exp": _log_sum_exp,
}


def _reduction(name: str, function: Callable[[Array, Any, bool], Any]) -> None:
    @op(name, constant="axes keep_dims")
    def reduce(x: Array, axes: Array | None = None, keep_dims: bool = False) -> Any:
        return function(x, tuple(ints(axes)) if axes is not None else tuple(range(x.ndim)), bool(keep_dims))


for _name, _function in _REDUCTIONS.items():
    _reduction(_name, _function)


@op("reduce_argmax", constant="axis keep_dims output_dtype", own_type=True)
def reduce_argmax(
    x: Array, axis: Array | int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Array:
    return np.asarray(x.argmax(axis=int(axis), keepdims=bool(keep_dims))).astype(output_dtype)


@op("reduce_argmin", constant="axis keep_dims output_dtype", own_type=True)
def reduce_argmin(
    x: Array, axis: Array | int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Array:
    return np.asarray(x.argmin(axis=int(axis), keepdims=bool(keep_dims))).astype(output_dtype)


def _order(x: Array, axis: int, ascending: bool) -> Array:
    # A stable order of the negated values: equal ones keep their places in both directions.
    keys = x if ascending else -x.astype(np.float64)
    return np.argsort(keys, axis=axis, kind="stable")


@op("argsort", constant="axis ascending")
def argsort(x: Array, axis: Array | int = -1, ascending: bool = False) -> Array:
    return _order(x, int(axis), bool(ascending)).astype(np.int32)


@op("topk", constant="axis ascending sort return_indices output_indices_dtype")
def topk(
    x: Array,
    k: Array | int = 1,
    axis: Array | int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Any:
    indices = np.take(_order(x, int(axis), bool(ascending)), np.arange(int(k)), axis=int(axis))
    values = np.take_along_axis(x, indices, int(axis))
    if not sort:
        raise Unsupported("topk without sorting: the order is not documented")
    return (values, indices.astype(output_indices_dtype)) if return_indices else values


@op("cumsum", constant="axis exclusive reverse")
def cumsum(x: Array, axis: Array | int = 0, exclusive: bool = False, reverse: bool = False) -> Array:
    along = int(axis)
    values = np.flip(x, along) if reverse else x
    total = np.cumsum(values, axis=along, dtype=x.dtype)
    if exclusive:
        total = total - values
    return np.asarray(np.flip(total, along) if reverse else total)


@op("layer_norm", constant="axes gamma beta epsilon", same="x gamma beta")
def layer_norm(
    x: Array,
    axes: Array | None = None,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    over = tuple(ints(axes)) if axes is not None else tuple(range(x.ndim))
    places = sorted(a % x.ndim for a in over)
    shape = [n if i in places else 1 for i, n in enumerate(x.shape)]
    y = (x - x.mean(axis=over, keepdims=True)) / np.sqrt(x.var(axis=over, keepdims=True) + epsilon)
    y = y if gamma is None else y * gamma.reshape(shape)
    return np.asarray(y if beta is None else y + beta.reshape(shape))


@op("batch_norm", constant="mean variance gamma beta epsilon", same="x mean variance gamma beta")
def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    epsilon: Array | float = 1e-5,
) -> Array:
    shape = (-1, *[1] * (x.ndim - 2))
    y = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + epsilon)
    y = y if gamma is None else y * gamma.reshape(shape)
    return np.asarray(y if beta is None else y + beta.reshape(shape))


@op("instance_norm", constant="gamma beta epsilon", same="x gamma beta")
def instance_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: Array | float = 1e-5
) -> Array:
    over = tuple(range(2, x.ndim))
    y = (x - x.mean(axis=over, keepdims=True)) / np.sqrt(x.var(axis=over, keepdims=True) + epsilon)
    y = y if gamma is None else y * gamma.reshape(-1, *[1] * len(over))
    return np.asarray(y if beta is None else y + beta.reshape(-1, *[1] * len(over)))


@op("l2_norm", constant="epsilon")
def l2_norm(x: Array, epsilon: Array | float = 1e-6) -> Array:
    over = (-3, -2, -1)
    return np.asarray(x / np.sqrt(np.square(x).sum(axis=over, keepdims=True) + epsilon))
