# SPDX-License-Identifier: Apache-2.0
"""Reductions along axes, and what else orders or accumulates along one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgefl.graph.kernels.arguments import axes_of, axis_of, integer, integers, ints_of, optional, required
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array

_Reduce = Callable[[Array, tuple[int, ...]], Any]


def _log_sum_exp(x: Array, axes: tuple[int, ...]) -> Any:
    top = _max(x, axes)
    top = np.where(np.isfinite(top), top, x.dtype.type(0))
    return np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top


def _max(x: Array, axes: tuple[int, ...]) -> Any:
    initial = -np.inf if x.dtype.kind == "f" else False if x.dtype.kind == "b" else np.iinfo(x.dtype).min
    return np.max(x, axis=axes, keepdims=True, initial=initial)


def _min(x: Array, axes: tuple[int, ...]) -> Any:
    initial = np.inf if x.dtype.kind == "f" else True if x.dtype.kind == "b" else np.iinfo(x.dtype).max
    return np.min(x, axis=axes, keepdims=True, initial=initial)


def _sum(x: Array, axes: tuple[int, ...]) -> Any:
    return np.sum(x, axis=axes, keepdims=True)


_REDUCE: dict[str, _Reduce] = {
    "ReduceL1": lambda x, axes: _sum(np.abs(x), axes),
    "ReduceL2": lambda x, axes: np.sqrt(_sum(x * x, axes)),
    "ReduceLogSum": lambda x, axes: np.log(_sum(x, axes)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _max,
    "ReduceMean": lambda x, axes: np.mean(x, axis=axes, keepdims=True),
    "ReduceMin": _min,
    "ReduceProd": lambda x, axes: np.prod(x, axis=axes, keepdims=True),
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes: _sum(x * x, axes),
}


def _register(name: str, function: _Reduce) -> None:
    @kernel(name)
    def reduction(inputs: Inputs, attributes: Attributes) -> Outputs:
        x, given = required(inputs), optional(inputs, 1)
        axes = _axes(x.ndim, given, attributes)
        if axes is None:
            return (x,)
        out = np.asarray(function(x, axes), x.dtype)
        if not integer(attributes, "keepdims", 1):
            out = out.reshape(tuple(n for i, n in enumerate(x.shape) if i not in axes))
        return (out,)


def _axes(rank: int, given: Array | None, attributes: Attributes) -> tuple[int, ...] | None:
    """Axes to reduce; None where `noop_with_empty_axes` asks for no reduction."""
    axes = integers(attributes, "axes", ()) if given is None else ints_of(given)
    if axes:
        return axes_of(axes, rank)
    return None if integer(attributes, "noop_with_empty_axes", 0) else tuple(range(rank))


for _name, _function in _REDUCE.items():
    _register(_name, _function)


def _arg(x: Array, attributes: Attributes, function: Callable[..., Any]) -> Outputs:
    axis = axis_of(integer(attributes, "axis", 0), x.ndim)
    if integer(attributes, "select_last_index", 0):
        found = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis)
    else:
        found = function(x, axis=axis)
    out = np.asarray(found, np.int64)
    return (np.expand_dims(out, axis) if integer(attributes, "keepdims", 1) else out,)


@kernel("ArgMax")
def arg_max(inputs: Inputs, attributes: Attributes) -> Outputs:
    return _arg(required(inputs), attributes, np.argmax)


@kernel("ArgMin")
def arg_min(inputs: Inputs, attributes: Attributes) -> Outputs:
    return _arg(required(inputs), attributes, np.argmin)


@kernel("TopK")
def top_k(inputs: Inputs, attributes: Attributes) -> Outputs:
    """The k largest (or smallest) values along an axis in order and their int64 indices; ties in order."""
    x, k = required(inputs), int(required(inputs, 1).reshape(()))
    axis = axis_of(integer(attributes, "axis", -1), x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ValueError(f"k is {k}, the axis has {x.shape[axis]} elements")
    if integer(attributes, "largest", 1):
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    indices = np.take(order, np.arange(k), axis=axis).astype(np.int64)
    return np.take_along_axis(x, indices, axis), indices


@kernel("CumSum")
def cum_sum(inputs: Inputs, attributes: Attributes) -> Outputs:
    x = required(inputs)
    axis = axis_of(int(required(inputs, 1).reshape(())), x.ndim)
    reverse = integer(attributes, "reverse", 0)
    x = np.flip(x, axis) if reverse else x
    out = np.cumsum(x, axis=axis, dtype=x.dtype)
    if integer(attributes, "exclusive", 0):
        out = np.concatenate(
            [np.zeros_like(x.take([0], axis)), out.take(range(x.shape[axis] - 1), axis)], axis
        )
    return (np.asarray(np.flip(out, axis) if reverse else out),)
