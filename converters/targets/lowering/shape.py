# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements without computing: reshapes, transposes, slices, pads, joins and look-ups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.broadcast import spread
from edgefl.converters.targets.lowering.registry import Call, lowering
from edgefl.converters.targets.lowering.value import (
    Lazy,
    arranged,
    common_order,
    held,
    kept,
    regrouped,
    reshape,
    widened,
)
from edgefl.graph import Array


@lowering("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def _reshape(call: Call) -> Lazy:
    return regrouped(call[0], call.shape)


@lowering("Transpose")
def _transpose(call: Call) -> Lazy:
    return call[0].transposed(call.ints("perm", range(call[0].rank)[::-1]))


@lowering("Concat")
def _concat(call: Call) -> Lazy:
    values, axis = call.values, int(call.attribute("axis"))
    order = common_order(values, values[0].rank)
    return Lazy(_joined([arranged(value, order) for value in values], order[axis]), order)


def concatenated(parts: Sequence[Any], axis: int) -> Any:
    """As `tf.concat`, without what that spends on arguments it need not look at."""
    if len(parts) == 1:
        return parts[0]
    return tf.raw_ops.ConcatV2(values=list(map(kept, parts)), axis=kept(np.asarray(axis, np.int32)))


def _joined(parts: Sequence[Any], axis: int) -> Any:
    """Concatenate; above four axes on three, which every interpreter knows."""
    shape = [int(n) for n in parts[0].shape]
    if len(shape) <= 4:
        return concatenated(parts, axis)
    outer, inner = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    whole = concatenated([reshape(part, (outer, part.shape[axis], inner)) for part in parts], 1)
    return reshape(whole, (*shape[:axis], whole.shape[1], *shape[axis + 1 :]))


@lowering("Split")
def _split(call: Call) -> tuple[Lazy, ...]:
    value, axis = call[0], call[0].axis(int(call.attribute("axis", 0)))
    stops = np.cumsum([type.shape[value.inverse()[axis]] for type in call.types]).tolist()
    starts = [0, *stops[:-1]]
    parts = (_along(value.data, axis, slice(a, b)) for a, b in zip(starts, stops, strict=True))
    return tuple(Lazy(part, value.order) for part in parts)


@lowering("Slice")
def _slice(call: Call) -> Lazy:
    """Starts, ends, axes and steps are constants; axes kept whole are merged with their neighbours."""
    value = call[0]
    starts, ends = call.constant(1).tolist(), call.constant(2).tolist()
    axes = call.constant(3).tolist() if call.given(3) else list(range(len(starts)))
    steps = call.constant(4).tolist() if call.given(4) else [1] * len(starts)
    cuts = [slice(None)] * value.rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = value.axis(axis)
        cuts[place] = _normal_slice(start, end, step, value.physical[place])
    return Lazy(_cut(value.data, cuts), value.order)


def _normal_slice(start: int, end: int, step: int, length: int) -> slice:
    """A slice as Python reads it from one as ONNX reads it, both clamped to the axis."""
    if step > 0:
        first, last, _ = slice(start, end, step).indices(length)
        return slice(None) if (first, last, step) == (0, length, 1) else slice(first, last, step)
    first = min(start + length if start < 0 else start, length - 1)
    last = max(end + length if end < 0 else end, -1)
    return slice(first, None if last < 0 else last, step)


def _cut(data: Any, cuts: Sequence[slice]) -> Any:
    shape = [int(n) for n in data.shape]
    whole = slice(None)
    runs = neighbours([cut == whole for cut in cuts])
    sizes = [len(range(*cut.indices(n))) for cut, n in zip(cuts, shape, strict=True)]
    merged = reshape(data, [int(np.prod([shape[axis] for axis in run])) for run in runs])
    return reshape(_taken(merged, [cuts[run[0]] for run in runs]), sizes)


def _taken(data: Any, cuts: Sequence[slice]) -> Any:
    """The elements of a slice. Where it steps, its rows are looked up: LiteRT 2.3 copies them one by one."""
    stepped = [axis for axis, cut in enumerate(cuts) if cut.step not in (None, 1)]
    if isinstance(data, np.ndarray):
        return data[tuple(cuts)]
    kept = tuple(slice(None) if axis in stepped else cut for axis, cut in enumerate(cuts))
    if any(cut != slice(None) for cut in kept):
        data = _strided(data, kept)
    for axis in stepped:
        places = np.arange(int(data.shape[axis]), dtype=np.int32)[cuts[axis]]
        data = tf.gather(data, places, axis=axis)
    return data


def _strided(data: Any, cuts: Sequence[slice]) -> Any:
    """`data[cuts]` for steps of one."""
    ends = [0 if cut.stop is None else cut.stop for cut in cuts]
    return tf.raw_ops.StridedSlice(
        input=data,
        begin=held([cut.start or 0 for cut in cuts]),
        end=held(ends),
        strides=held([1] * len(cuts)),
        begin_mask=sum(1 << axis for axis, cut in enumerate(cuts) if cut.start is None),
        end_mask=sum(1 << axis for axis, cut in enumerate(cuts) if cut.stop is None),
    )


def _along(data: Any, axis: int, cut: slice) -> Any:
    cuts = [slice(None)] * len(data.shape)
    cuts[axis] = cut
    return _cut(data, cuts)


def neighbours(mergeable: Sequence[bool]) -> list[list[int]]:
    """Axes in runs: neighbours that may be merged together, every other axis alone."""
    runs: list[list[int]] = []
    for axis, free in enumerate(mergeable):
        if free and runs and mergeable[axis - 1]:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


@lowering("Pad")
def _pad(call: Call) -> Lazy:
    """Constant, reflect and edge padding; negative pads crop."""
    value, mode = call[0], str(call.attribute("mode", "constant"))
    widths = _pad_widths(call)
    data = _cut(value.data, [_kept(a, b, n) for (a, b), n in zip(widths, value.physical, strict=True)])
    grown = [(max(a, 0), max(b, 0)) for a, b in widths]
    if mode == "constant":
        fill = call.constant(2).reshape(()) if call.given(2) else np.zeros((), value.dtype)
        return Lazy(padded(data, grown, fill), value.order)
    if mode not in ("reflect", "edge"):
        raise call.refuse(f"padding mode {mode!r}; constant, reflect and edge are known")
    for axis, width in enumerate(grown):
        if width != (0, 0):
            data = tf.gather(data, _mirrored(int(data.shape[axis]), width, mode), axis=axis)
    return Lazy(data, value.order)


def _mirrored(length: int, width: tuple[int, int], mode: str) -> Array:
    """Where each element of a padded axis comes from."""
    places = np.arange(length, dtype=np.int32)
    return np.pad(places, width, mode="reflect") if mode == "reflect" else np.pad(places, width, mode="edge")


def _kept(before: int, after: int, length: int) -> slice:
    """What negative pads leave of an axis."""
    return slice(max(-before, 0), length + min(after, 0)) if min(before, after) < 0 else slice(None)


def _pad_widths(call: Call) -> list[tuple[int, int]]:
    """Pads before and after each axis in memory."""
    value, pads = call[0], call.constant(1).tolist()
    axes = call.constant(3).tolist() if call.given(3) else list(range(value.rank))
    widths = [(0, 0)] * value.rank
    for i, axis in enumerate(axes):
        widths[value.axis(axis)] = (int(pads[i]), int(pads[i + len(axes)]))
    return widths


def padded(data: Any, widths: Sequence[tuple[int, int]], fill: Any = 0.0) -> Any:
    """Pad with a constant; axes that are not padded are merged with their neighbours."""
    if not any(map(any, widths)):
        return data
    shape = [int(n) for n in data.shape]
    runs = neighbours([width == (0, 0) for width in widths])
    merged = reshape(data, [int(np.prod([shape[axis] for axis in run])) for run in runs])
    value = np.asarray(fill, getattr(data.dtype, "as_numpy_dtype", data.dtype))
    grown = tf.pad(merged, [widths[run[0]] for run in runs], constant_values=value)
    return reshape(grown, [a + n + b for n, (a, b) in zip(shape, widths, strict=True)])


@lowering("Expand")
def _expand(call: Call) -> Lazy:
    value = widened(call[0], len(call.shape))
    target = [call.shape[axis] for axis in value.inverse()]
    return Lazy(spread(value.data, target), value.order)


@lowering("Tile")
def _tile(call: Call) -> Lazy:
    repeats = call.constant(1).tolist()
    return Lazy(tf.tile(call[0].data, [repeats[axis] for axis in call[0].inverse()]), call[0].order)
