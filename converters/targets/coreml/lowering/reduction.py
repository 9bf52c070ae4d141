# SPDX-License-Identifier: Apache-2.0
"""Operators over whole axes: reductions, softmax, running sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.border import MAX_RANK
from edgefl.converters.targets.coreml.lowering.registry import LOWERINGS, Call, lowering
from edgefl.converters.targets.coreml.lowering.value import Value, count, ints, merged, neighbours, reshape

_REDUCTIONS = {
    "ReduceSum": "reduce_sum",
    "ReduceMean": "reduce_mean",
    "ReduceMax": "reduce_max",
    "ReduceMin": "reduce_min",
    "ReduceProd": "reduce_prod",
}


def reduced(function: Callable[..., Any], value: Value, axes: Sequence[int], shape: Sequence[int]) -> Value:
    """Reduce over axes to a value of the given shape; axes kept whole are merged with their neighbours."""
    gone = {axis % value.rank for axis in axes}
    if not gone or all(value.shape[axis] == 1 for axis in gone):
        return value.become(value.data, shape)
    runs = _runs([axis in gone for axis in range(value.rank)])
    if len(runs) > MAX_RANK:
        return _one_by_one(function, value, sorted(gone), shape)
    data = value.at(*merged(value.shape, runs))
    places = [place for place, run in enumerate(runs) if run[0] in gone]
    return value.become(function(x=data, axes=ints(places), keep_dims=True), shape)


def _one_by_one(
    function: Callable[..., Any], value: Value, axes: Sequence[int], shape: Sequence[int]
) -> Value:
    """Reduce one axis after the other; sums, means and extremes do not mind."""
    sizes = list(value.shape)
    data = value.data
    for axis in axes:
        parts = count(sizes[:axis]), sizes[axis], count(sizes[axis + 1 :])
        data = function(x=reshape(data, parts), axes=ints((1,)), keep_dims=True)
        sizes[axis] = 1
    return value.become(data, shape)


def _runs(gone: Sequence[bool]) -> list[list[int]]:
    """Neighbours that are all reduced or all kept, where there are more axes than Core ML holds."""
    if len(gone) <= MAX_RANK:
        return [[axis] for axis in range(len(gone))]
    runs: list[list[int]] = []
    for axis, flag in enumerate(gone):
        if runs and gone[runs[-1][0]] == flag:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def _reduce(name: str) -> Callable[[Call], Value]:
    return lambda call: reduced(getattr(mb, name), call[0], _axes(call), call.shape)


LOWERINGS.update({op: _reduce(name) for op, name in _REDUCTIONS.items()})


@lowering("GlobalAveragePool")
def _global_average(call: Call) -> Value:
    return reduced(mb.reduce_mean, call[0], range(2, call[0].rank), call.shape)


def _axes(call: Call) -> tuple[int, ...]:
    """Axes from the second input (opset 18) or the attribute (before); none means all, or no reduction."""
    rank = call[0].rank
    given = call.constant(1).reshape(-1).tolist() if call.given(1) else call.attribute("axes")
    if not given:
        return () if call.attribute("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(int(axis) % rank for axis in given)


def _around(value: Value, axis: int) -> tuple[Any, int]:
    """The data with one axis apart, and its place: as it is up to five axes, on three above."""
    if value.rank <= MAX_RANK:
        return value.plain(), axis
    runs = neighbours([place != axis for place in range(value.rank)])
    return value.at(*merged(value.shape, runs)), [run[0] for run in runs].index(axis)


@lowering("Softmax")
def _softmax(call: Call) -> Value:
    data, axis = _around(call[0], int(call.attribute("axis", -1)) % call[0].rank)
    return call[0].become(mb.softmax(x=data, axis=axis), call.shape)


@lowering("LogSoftmax")
def _log_softmax(call: Call) -> Value:
    """Differences to the largest score, less the logarithm of their exponentials' sum."""
    data, axis = _around(call[0], int(call.attribute("axis", -1)) % call[0].rank)
    shifted = mb.sub(x=data, y=mb.reduce_max(x=data, axes=ints((axis,)), keep_dims=True))
    total = mb.reduce_sum(x=mb.exp(x=shifted), axes=ints((axis,)), keep_dims=True)
    return call[0].become(mb.sub(x=shifted, y=mb.log(x=total)), call.shape)


@lowering("CumSum")
def _cumulative(call: Call) -> Value:
    data, axis = _around(call[0], int(call.constant(1).reshape(())) % call[0].rank)
    flags = {name: bool(call.attribute(name, 0)) for name in ("exclusive", "reverse")}
    return call[0].become(mb.cumsum(x=data, axis=axis, **flags), call.shape)


@lowering("ArgMax", "ArgMin")
def _arg(call: Call) -> Value:
    if call.attribute("select_last_index", 0):
        raise call.refuse("select_last_index; of equal values Core ML takes the first")
    data, axis = _around(call[0], int(call.attribute("axis", 0)) % call[0].rank)
    function = {"ArgMax": mb.reduce_argmax, "ArgMin": mb.reduce_argmin}[call.node.op]
    found = function(x=data, axis=axis, keep_dims=True)
    assert count(call.shape) == count(found.shape), call.node
    return Value(found, call.shape, "i")
