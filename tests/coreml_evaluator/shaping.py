# SPDX-License-Identifier: Apache-2.0
"""Operations of MIL that arrange values: shapes, slices, padding, constants of a shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused, TooLarge
from tests.coreml_evaluator.registry import ints, op
from tests.coreml_evaluator.values import MAX_ELEMENTS

_SLICES = "begin_mask end_mask squeeze_mask"


@op("reshape")
def reshape(x: Array, shape: Array) -> Array:
    sizes = ints(shape)
    if 0 in sizes and len(sizes) != x.ndim:
        raise Refused(f"reshape of {x.shape} to {sizes}: 0 copies a size only where the ranks are equal")
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(sizes)])


@op("reshape_like", same="")
def reshape_like(
    x: Array, ref_tensors: list[Array], begins: list[Array], ends: list[Array], end_masks: list[Array]
) -> Array:
    sizes: list[int] = []
    for tensor, begin, end, whole in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += tensor.shape[int(begin) : None if whole else int(end)]
    return x.reshape(sizes)


@op("transpose", constant="perm")
def transpose(x: Array, perm: Array) -> Array:
    return x.transpose(ints(perm))


@op("expand_dims", constant="axes")
def expand_dims(x: Array, axes: Array) -> Array:
    return np.expand_dims(x, tuple(ints(axes)))


@op("squeeze", constant="axes")
def squeeze(x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(ints(axes)))


@op("flatten2d", constant="axis")
def flatten2d(x: Array, axis: Array | int = 1) -> Array:
    return x.reshape(math.prod(x.shape[: int(axis)]), -1)


@op("shape")
def shape(x: Array) -> Array:
    return np.array(x.shape, np.int32)


@op("concat", constant="axis interleave", same="values")
def concat(values: list[Array], axis: Array, interleave: bool = False) -> Array:
    along = int(axis)
    if not interleave:
        return np.concatenate(values, along) if values[0].ndim else np.stack(values)
    return np.concatenate([np.stack(values, along % values[0].ndim + 1)], 0).reshape(
        [n * len(values) if i == along % values[0].ndim else n for i, n in enumerate(values[0].shape)]
    )


@op("stack", constant="axis", same="values")
def stack(values: list[Array], axis: Array) -> Array:
    return np.stack(values, int(axis))


@op("split", constant="axis num_splits split_sizes")
def split(
    x: Array, axis: Array, num_splits: Array | None = None, split_sizes: Array | None = None
) -> tuple[Array, ...]:
    along = int(axis)
    if split_sizes is None:
        if num_splits is None or x.shape[along] % int(num_splits):
            raise Refused(f"split of {x.shape[along]} into {num_splits}")
        return tuple(np.split(x, int(num_splits), along))
    sizes = ints(split_sizes)
    if sum(sizes) != x.shape[along]:
        raise Refused(f"split of {x.shape[along]} into {sizes}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], along))


def where(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None,
    begin_mask: Array | None,
    end_mask: Array | None,
    squeeze_mask: Array | None,
) -> tuple[slice | int, ...]:
    """The index that `slice_by_index` and `slice_update` mean."""
    rank = x.ndim
    first, last = ints(begin), ints(end)
    steps = ints(stride) if stride is not None else [1] * rank
    masks = [
        [False] * rank if m is None else [bool(v) for v in m] for m in (begin_mask, end_mask, squeeze_mask)
    ]
    if not len(first) == len(last) == len(steps) == len(masks[0]) == len(masks[1]) == len(masks[2]) == rank:
        raise Refused(f"a slice of rank {rank} with begin {first}, end {last}, stride {steps}")
    return tuple(
        first[i]
        if masks[2][i]
        else slice(None if masks[0][i] else first[i], None if masks[1][i] else last[i], steps[i])
        for i in range(rank)
    )


@op("slice_by_index", constant="stride " + _SLICES)
def slice_by_index(
    x: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    return np.asarray(x[where(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)])


@op("slice_update", constant="stride " + _SLICES, same="x update")
def slice_update(
    x: Array,
    update: Array,
    begin: Array,
    end: Array,
    stride: Array | None = None,
    begin_mask: Array | None = None,
    end_mask: Array | None = None,
    squeeze_mask: Array | None = None,
) -> Array:
    y = x.copy()
    place = where(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if y[place].shape != update.shape:
        raise Refused(f"slice_update of {y[place].shape} with {update.shape}")
    y[place] = update
    return y


@op("slice_by_size")
def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    first = [b % n if b < 0 else b for b, n in zip(ints(begin), x.shape, strict=True)]
    sizes = [n - b if s == -1 else s for s, b, n in zip(ints(size), first, x.shape, strict=True)]
    if any(b + s > n for b, s, n in zip(first, sizes, x.shape, strict=True)):
        raise Refused(f"slice_by_size of {x.shape} from {first}, sizes {sizes}")
    return x[tuple(slice(b, b + s) for b, s in zip(first, sizes, strict=True))]


@op("reverse", constant="axes")
def reverse(x: Array, axes: Array | None = None) -> Array:
    return np.flip(x, None if axes is None else tuple(ints(axes)))


@op("sliding_windows", constant="axis size stride")
def sliding_windows(x: Array, axis: Array, size: Array, stride: Array | int = 1) -> Array:
    along = int(axis) % x.ndim
    seen = np.lib.stride_tricks.sliding_window_view(x, int(size), along)
    return np.moveaxis(seen, -1, along + 1)[(*[slice(None)] * along, slice(None, None, int(stride)))]


@op("pad", constant="mode constant_val")
def pad(x: Array, pad: Array, mode: str = "constant", constant_val: Array | float = 0.0) -> Array:
    edges = ints(pad)
    if len(edges) % 2 or len(edges) > 2 * x.ndim or min(edges, default=0) < 0:
        raise Refused(f"pad {edges} of rank {x.ndim}")
    pairs = [(0, 0)] * (x.ndim - len(edges) // 2) + list(zip(edges[::2], edges[1::2], strict=True))
    bounded(math.prod(n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)))
    if mode == "constant":
        return np.pad(x, pairs, constant_values=np.asarray(constant_val, x.dtype)[()])
    names: dict[str, Any] = {"reflect": "reflect", "replicate": "edge"}
    if mode not in names:
        raise Refused(f"pad mode {mode!r}")
    return np.asarray(np.pad(x, pairs, mode=names[mode]))


@op("tile")
def tile(x: Array, reps: Array) -> Array:
    times = ints(reps)
    if len(times) != x.ndim:
        raise Refused(f"tile of rank {x.ndim} by {times}")
    bounded(x.size * math.prod(times))
    return np.tile(x, times)


@op("fill", own_type=True)
def fill(shape: Array, value: Array | float = 0.0) -> Array:
    bounded(math.prod(ints(shape)))
    return np.full(
        ints(shape), value, np.asarray(value, None if isinstance(value, np.ndarray) else np.float32).dtype
    )


@op("fill_like", constant="value", same="")
def fill_like(ref_tensor: Array, value: Array | float = 0.0) -> Array:
    return np.full(ref_tensor.shape, value, np.float32 if isinstance(value, float) else value.dtype)


@op("range_1d", same="start end step")
def range_1d(start: Array, end: Array, step: Array) -> Array:
    bounded(int((float(end) - float(start)) / float(step)) + 1)
    return np.arange(start[()], end[()], step[()], dtype=start.dtype)


@op("band_part", constant="lower upper")
def band_part(x: Array, lower: Array | int = -1, upper: Array | int = -1) -> Array:
    row, column = np.indices(x.shape[-2:])
    below = np.logical_or(int(lower) < 0, row - column <= int(lower))
    above = np.logical_or(int(upper) < 0, column - row <= int(upper))
    return np.where(below & above, x, np.zeros((), x.dtype))


@op("one_hot", constant="axis on_value off_value", own_type=True)
def one_hot(
    indices: Array,
    one_hot_vector_size: Array,
    axis: Array | int = -1,
    on_value: Array | int = 1,
    off_value: Array | int = 0,
) -> Array:
    bounded(indices.size * int(one_hot_vector_size))
    on = np.asarray(on_value, None if isinstance(on_value, np.ndarray) else np.int32)
    place = int(axis) % (indices.ndim + 1)
    steps = np.arange(int(one_hot_vector_size)).reshape(-1, *[1] * (indices.ndim - place))
    return np.where(np.expand_dims(indices, place) == steps, on, np.asarray(off_value, on.dtype))


@op("pixel_shuffle", constant="upscale_factor")
def pixel_shuffle(x: Array, upscale_factor: Array) -> Array:
    n, c, h, w = x.shape
    f = int(upscale_factor)
    return (
        x.reshape(n, c // (f * f), f, f, h, w)
        .transpose(0, 1, 4, 2, 5, 3)
        .reshape(n, c // (f * f), h * f, w * f)
    )


@op("pixel_unshuffle", constant="downscale_factor")
def pixel_unshuffle(x: Array, downscale_factor: Array) -> Array:
    n, c, h, w = x.shape
    f = int(downscale_factor)
    return (
        x.reshape(n, c, h // f, f, w // f, f)
        .transpose(0, 1, 3, 5, 2, 4)
        .reshape(n, c * f * f, h // f, w // f)
    )


@op("depth_to_space", constant="block_size")
def depth_to_space(x: Array, block_size: Array) -> Array:
    n, c, h, w = x.shape
    b = int(block_size)
    return (
        x.reshape(n, b, b, c // (b * b), h, w)
        .transpose(0, 3, 4, 1, 5, 2)
        .reshape(n, c // (b * b), h * b, w * b)
    )


@op("space_to_depth", constant="block_size")
def space_to_depth(x: Array, block_size: Array) -> Array:
    n, c, h, w = x.shape
    b = int(block_size)
    return (
        x.reshape(n, c, h // b, b, w // b, b)
        .transpose(0, 3, 5, 1, 2, 4)
        .reshape(n, c * b * b, h // b, w // b)
    )


def bounded(count: int) -> None:
    if count > MAX_ELEMENTS:
        raise TooLarge(f"{count} elements, allowed {MAX_ELEMENTS}")
