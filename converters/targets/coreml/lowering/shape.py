# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements without computing: reshapes, transposes, slices, pads, joins and repeats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.border import MAX_RANK
from edgefl.converters.targets.coreml.lowering.broadcast import spread
from edgefl.converters.targets.coreml.lowering.elementwise import cast
from edgefl.converters.targets.coreml.lowering.registry import Call, lowering
from edgefl.converters.targets.coreml.lowering.value import (
    Value,
    count,
    ints,
    merged,
    neighbours,
    transposed,
)
from edgefl.graph import Array


@lowering("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def _reshape(call: Call) -> Value:
    return call[0].become(call[0].data, call.shape)


@lowering("Transpose")
def _transpose(call: Call) -> Value:
    permutation = call.ints("perm", range(call[0].rank)[::-1])
    return call[0].become(transposed(call[0].data, call[0].shape, permutation), call.shape)


@lowering("Concat")
def _concat(call: Call) -> Value:
    """A join; above five axes on three."""
    values, axis = call.all, int(call.attribute("axis")) % len(call.shape)
    if len(call.shape) <= MAX_RANK:
        return values[0].become(mb.concat(values=[v.plain() for v in values], axis=axis), call.shape)
    parts = [v.at(count(v.shape[:axis]), v.shape[axis], count(v.shape[axis + 1 :])) for v in values]
    return values[0].become(mb.concat(values=parts, axis=1), call.shape)


@lowering("Split")
def _split(call: Call) -> tuple[Value, ...]:
    axis = int(call.attribute("axis", 0)) % call[0].rank
    stops = np.cumsum([type.shape[axis] for type in call.types]).tolist()
    starts = [0, *stops[:-1]]
    return tuple(along(call[0], axis, slice(a, b)) for a, b in zip(starts, stops, strict=True))


@lowering("Slice")
def _slice(call: Call) -> Value:
    """Starts, ends, axes and steps are constants."""
    value = call[0]
    starts, ends = call.constant(1).tolist(), call.constant(2).tolist()
    axes = call.constant(3).tolist() if call.given(3) else list(range(len(starts)))
    steps = call.constant(4).tolist() if call.given(4) else [1] * len(starts)
    cuts = [slice(None)] * value.rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cuts[axis] = _normal_slice(start, end, step, value.shape[axis])
    return cut(value, cuts)


def _normal_slice(start: int, end: int, step: int, length: int) -> slice:
    """A slice as Python reads it from one as ONNX reads it, both clamped to the axis."""
    if step > 0:
        first, last, _ = slice(start, end, step).indices(length)
        return slice(None) if (first, last, step) == (0, length, 1) else slice(first, last, step)
    first = min(start + length if start < 0 else start, length - 1)
    last = max(end + length if end < 0 else end, -1)
    return slice(first, None if last < 0 else last, step)


def cut(value: Value, cuts: Sequence[slice]) -> Value:
    """The slice of a value, by Python's slices; axes kept whole are merged with their neighbours."""
    sizes = [len(range(*c.indices(n))) for c, n in zip(cuts, value.shape, strict=True)]
    if tuple(sizes) == value.shape and all(c.step in (None, 1) for c in cuts):
        return value
    whole = [c == slice(None) for c in cuts]
    runs = neighbours(whole)
    places = [(place, cuts[run[0]]) for place, run in enumerate(runs) if not whole[run[0]]]
    if len(runs) <= MAX_RANK:
        return value.become(_cut(value.at(*merged(value.shape, runs)), places), sizes)
    for axis, which in enumerate(cuts):
        value = along(value, axis, which)
    return value


def _cut(data: Any, places: Sequence[tuple[int, slice]]) -> Any:
    """Forward slices by Core ML's own; axes read backwards are reversed first."""
    shape = [int(n) for n in data.shape]
    begin, end, stride = [0] * len(shape), list(shape), [1] * len(shape)
    backward = [place for place, c in places if (c.step or 1) < 0]
    if backward:
        data = mb.reverse(x=data, axes=ints(backward))
    for place, c in places:
        picked = range(*c.indices(shape[place]))
        first = shape[place] - 1 - picked[0] if picked.step < 0 else picked[0]
        begin[place], stride[place] = first, abs(picked.step)
        end[place] = first + (len(picked) - 1) * abs(picked.step) + 1
    if (begin, end, stride) == ([0] * len(shape), shape, [1] * len(shape)):
        return data
    return mb.slice_by_index(x=data, begin=ints(begin), end=ints(end), stride=ints(stride))


def along(value: Value, axis: int, which: slice) -> Value:
    """A slice along one axis."""
    cuts = [slice(None)] * value.rank
    cuts[axis] = slice(None) if which.indices(value.shape[axis]) == (0, value.shape[axis], 1) else which
    return cut(value, cuts)


@lowering("Pad")
def _pad(call: Call) -> Value:
    """Constant, reflect and edge padding; negative pads crop."""
    value, mode = call[0], str(call.attribute("mode", "constant"))
    widths = _widths(call)
    value = cut(value, [_kept(a, b, n) for (a, b), n in zip(widths, value.shape, strict=True)])
    grown = [(max(a, 0), max(b, 0)) for a, b in widths]
    if mode == "constant":
        fill = float(call.constant(2).reshape(())) if call.given(2) else 0.0
        return cast(padded(cast(value, "f"), grown, fill), value.kind)
    if mode not in ("reflect", "edge"):
        raise call.refuse(f"padding mode {mode!r}; constant, reflect and edge are known")
    for axis, width in enumerate(grown):
        if width != (0, 0):
            value = pick(value, axis, _mirrored(value.shape[axis], width, mode))
    return value


def _mirrored(length: int, width: tuple[int, int], mode: str) -> Array:
    """Where each element of a padded axis comes from."""
    places = np.arange(length, dtype=np.int32)
    return np.pad(places, width, mode="reflect") if mode == "reflect" else np.pad(places, width, mode="edge")


def _kept(before: int, after: int, length: int) -> slice:
    """What negative pads leave of an axis."""
    return slice(max(-before, 0), length + min(after, 0)) if min(before, after) < 0 else slice(None)


def _widths(call: Call) -> list[tuple[int, int]]:
    """Pads before and after each axis."""
    pads = call.constant(1).tolist()
    axes = call.constant(3).tolist() if call.given(3) else list(range(call[0].rank))
    widths = [(0, 0)] * call[0].rank
    for i, axis in enumerate(axes):
        widths[axis] = (int(pads[i]), int(pads[i + len(axes)]))
    return widths


def padded(value: Value, widths: Sequence[tuple[int, int]], fill: float = 0.0) -> Value:
    """Pad with a constant; axes that are not padded are merged with their neighbours."""
    if not any(map(any, widths)):
        return value
    runs = neighbours([width == (0, 0) for width in widths])
    if len(runs) > MAX_RANK:
        axis = next(axis for axis, width in enumerate(widths) if any(width))
        one = [width if place == axis else (0, 0) for place, width in enumerate(widths)]
        rest = [(0, 0) if place == axis else width for place, width in enumerate(widths)]
        return padded(padded(value, one, fill), rest, fill)
    pads = [n for run in runs for n in widths[run[0]]]
    shape = [a + n + b for n, (a, b) in zip(value.shape, widths, strict=True)]
    data = mb.pad(
        x=value.at(*merged(value.shape, runs)), pad=ints(pads), mode="constant", constant_val=np.float32(fill)
    )
    return value.become(data, shape)


def pick(value: Value, axis: int, indices: Any) -> Value:
    """Elements along an axis at the given indices, a vector of non-negative numbers."""
    shape = value.shape
    if len(shape) <= MAX_RANK:
        made = mb.gather(x=value.plain(), indices=indices, axis=axis)
    else:
        whole = value.at(count(shape[:axis]), shape[axis], count(shape[axis + 1 :]))
        made = mb.gather(x=whole, indices=indices, axis=1)
    return value.become(made, (*shape[:axis], int(indices.shape[0]), *shape[axis + 1 :]))


@lowering("Expand")
def _expand(call: Call) -> Value:
    return spread(call[0], call.shape)


@lowering("Tile")
def _tile(call: Call) -> Value:
    value, repeats = call[0], call.constant(1).tolist()
    runs = neighbours([n == 1 for n in repeats])
    if len(runs) > MAX_RANK:
        raise call.refuse(f"it repeats {sum(n != 1 for n in repeats)} of {value.rank} axes")
    data = value.at(*merged(value.shape, runs))
    return value.become(mb.tile(x=data, reps=ints([repeats[run[0]] for run in runs])), call.shape)


@lowering("Trilu")
def _triangle(call: Call) -> Value:
    rows, columns = call.shape[-2:]
    shift = int(call.constant(1).reshape(())) if call.given(1) else 0
    ones = np.ones((rows, columns), np.float32)
    mask = np.triu(ones, shift) if call.attribute("upper", 1) else np.tril(ones, shift)
    data = call[0].at(count(call.shape[:-2]), rows, columns)
    kept = mask.astype(np.int32) if call[0].kind == "i" else mask
    return call[0].become(mb.mul(x=data, y=kept[None]), call.shape)
