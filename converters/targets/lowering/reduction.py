# SPDX-License-Identifier: Apache-2.0
"""Operators over whole axes: reductions and softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from edgefl.converters.targets.lowering.registry import LOWERINGS, Call, lowering
from edgefl.converters.targets.lowering.value import Lazy, trailing

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": tf.reduce_sum,
    "ReduceMean": tf.reduce_mean,
    "ReduceMax": tf.reduce_max,
    "ReduceMin": tf.reduce_min,
    "ReduceProd": tf.reduce_prod,
}


def _reduce(function: Callable[..., Any]) -> Callable[[Call], Lazy]:
    return lambda call: reduced(function, call[0], _axes(call), bool(call.attribute("keepdims", 1)))


LOWERINGS.update({name: _reduce(function) for name, function in _REDUCTIONS.items()})


def reduced(function: Callable[..., Any], value: Lazy, axes: tuple[int, ...], keep: bool) -> Lazy:
    """Reduce over logical axes, wherever they are in memory."""
    if not axes:
        return value
    gone = sorted(value.axis(axis) for axis in axes)
    data = function(value.data, axis=gone, keepdims=keep)
    if keep:
        return Lazy(data, value.order)
    left = [place for place in value.order if place not in gone]
    return Lazy(data, tuple(place - sum(g < place for g in gone) for place in left))


def _axes(call: Call) -> tuple[int, ...]:
    """Axes from the second input (opset 18) or the attribute (before); none means all, or no reduction."""
    rank = call[0].rank
    given = call.constant(1).reshape(-1).tolist() if call.given(1) else call.attribute("axes")
    if not given:
        return () if call.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(int(axis) % rank for axis in given)


@lowering("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Lazy:
    """The axis is moved to the end of memory if it is elsewhere: interpreters know no other."""
    function = {"Softmax": tf.nn.softmax, "LogSoftmax": tf.nn.log_softmax}[call.node.op]
    value = trailing(call[0], int(call.attribute("axis", -1)))
    return Lazy(function(value.data), value.order)


@lowering("CumSum")
def _cumulative(call: Call) -> Lazy:
    value, axis = call[0], call[0].axis(int(call.constant(1).reshape(())))
    exclusive, reverse = bool(call.attribute("exclusive", 0)), bool(call.attribute("reverse", 0))
    return Lazy(tf.cumsum(value.data, axis, exclusive=exclusive, reverse=reverse), value.order)


@lowering("ArgMax", "ArgMin")
def _arg(call: Call) -> Lazy:
    function = {"ArgMax": tf.argmax, "ArgMin": tf.argmin}[call.node.op]
    axis, keep = int(call.attribute("axis", 0)), bool(call.attribute("keepdims", 1))

    def pick(data: Any, axis: list[int], keepdims: bool) -> Any:
        found = function(data, axis=axis[0], output_type=tf.int32)
        return tf.expand_dims(found, axis[0]) if keepdims else found

    return reduced(pick, call[0], (axis % call[0].rank,), keep)
