# SPDX-License-Identifier: Apache-2.0
"""Operators that move elements without changing them, as views wherever NumPy can."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgefl.graph.kernels.arguments import (
    axes_of,
    axis_of,
    integer,
    integers,
    ints_of,
    optional,
    present,
    required,
    same_dtype,
    text,
)
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array
from edgefl.graph.onnx_schema import DTYPES


@kernel("Reshape")
def reshape(inputs: Inputs, attributes: Attributes) -> Outputs:
    """A new shape with at most one -1; 0 keeps the input's dimension unless `allowzero` is 1."""
    x, shape = required(inputs), ints_of(required(inputs, 1))
    if not integer(attributes, "allowzero", 0):
        shape = tuple(x.shape[i] if n == 0 else n for i, n in enumerate(shape))
    return (x.reshape(shape),)


@kernel("Flatten")
def flatten(inputs: Inputs, attributes: Attributes) -> Outputs:
    """A matrix: the dimensions before `axis`, and the rest."""
    x, axis = required(inputs), integer(attributes, "axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise ValueError(f"axis {axis} is out of range for rank {x.ndim}")
    axis = axis + x.ndim if axis < 0 else axis
    return (x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])),)


@kernel("Transpose")
def transpose(inputs: Inputs, attributes: Attributes) -> Outputs:
    x = required(inputs)
    return (x.transpose(integers(attributes, "perm", tuple(reversed(range(x.ndim))))),)


@kernel("Squeeze")
def squeeze(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, axes = required(inputs), optional(inputs, 1)
    return (np.squeeze(x, None if axes is None else axes_of(ints_of(axes), x.ndim)),)


@kernel("Unsqueeze")
def unsqueeze(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, axes = required(inputs), ints_of(required(inputs, 1))
    return (np.expand_dims(x, axes_of(axes, x.ndim + len(axes))),)


@kernel("Concat")
def concat(inputs: Inputs, attributes: Attributes) -> Outputs:
    arrays = present(inputs)
    same_dtype(*arrays)
    return (np.concatenate(arrays, axis_of(integer(attributes, "axis", 0), arrays[0].ndim)),)


@kernel("Split")
def split(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Consecutive parts of an axis, of the sizes given or `num_outputs` equal ones (the last one smaller)."""
    x, given = required(inputs), optional(inputs, 1)
    axis = axis_of(integer(attributes, "axis", 0), x.ndim)
    if given is None:
        count = integer(attributes, "num_outputs", 0)
        if count < 1:
            raise ValueError("Split needs sizes or num_outputs")
        chunk = -(-x.shape[axis] // count)
        sizes = [max(0, min(chunk, x.shape[axis] - i * chunk)) for i in range(count)]
    else:
        sizes = list(ints_of(given))
    if min(sizes, default=0) < 0 or sum(sizes) != x.shape[axis]:
        raise ValueError(f"sizes {sizes} do not split {x.shape[axis]} elements of axis {axis}")
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis))


@kernel("Expand")
def expand(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, shape = required(inputs), ints_of(required(inputs, 1))
    return (np.broadcast_to(x, np.broadcast_shapes(x.shape, shape)),)


@kernel("Tile")
def tile(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, repeats = required(inputs), ints_of(required(inputs, 1))
    if len(repeats) != x.ndim:
        raise ValueError(f"{len(repeats)} repeats for rank {x.ndim}")
    return (np.tile(x, repeats),)


@kernel("Pad")
def pad(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Padding by a constant, the edge, a reflection or the other end; negative pads cut."""
    x, pads = required(inputs), ints_of(required(inputs, 1))
    value, axes = optional(inputs, 2), optional(inputs, 3)
    places = tuple(range(x.ndim)) if axes is None else axes_of(ints_of(axes), x.ndim)
    if len(pads) != 2 * len(places):
        raise ValueError(f"{len(pads)} pads for {len(places)} axes")
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(places):
        widths[axis] = (pads[i], pads[len(places) + i])
    cut = tuple(slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(x.shape, widths, strict=True))
    widths = [(max(0, b), max(0, a)) for b, a in widths]
    mode = text(attributes, "mode", "constant")
    if mode == "constant":
        return (_pad_constant(x[cut], widths, 0 if value is None else value.reshape(())[()]),)
    if mode not in ("reflect", "edge", "wrap"):
        raise ValueError(f"pad mode {mode!r} is none of constant, reflect, edge, wrap")
    return (np.pad(x[cut], widths, mode=mode),)  # type: ignore[call-overload]


def _pad_constant(x: Array, widths: list[tuple[int, int]], value: Any) -> Array:
    out = np.full([n + b + a for n, (b, a) in zip(x.shape, widths, strict=True)], value, x.dtype)
    out[tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, widths, strict=True))] = x
    return out


@kernel("DepthToSpace")
def depth_to_space(inputs: Inputs, attributes: Attributes) -> Outputs:
    """`[N, C b b, H, W]` to `[N, C, H b, W b]`, depth first (DCR) or column first (CRD)."""
    x, b = required(inputs), integer(attributes, "blocksize", 1)
    n, c, h, w = x.shape
    if text(attributes, "mode", "DCR") == "DCR":
        moved = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        moved = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return (moved.reshape(n, c // b**2, h * b, w * b),)


@kernel("SpaceToDepth")
def space_to_depth(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, b = required(inputs), integer(attributes, "blocksize", 1)
    n, c, h, w = x.shape
    moved = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return (moved.reshape(n, c * b**2, h // b, w // b),)


@kernel("Shape")
def shape_of(inputs: Inputs, attributes: Attributes) -> Outputs:
    shape = required(inputs).shape
    end = attributes.get("end")
    return (np.array(shape[integer(attributes, "start", 0) : None if end is None else int(end)], np.int64),)  # type: ignore[arg-type]


@kernel("Size")
def size_of(inputs: Inputs, attributes: Attributes) -> Outputs:
    return (np.array(required(inputs).size, np.int64),)


@kernel("Constant")
def constant(inputs: Inputs, attributes: Attributes) -> Outputs:
    [(name, value)] = attributes.items()
    dtypes = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    return (np.asarray(value, None if name == "value" else dtypes[name]),)


@kernel("ConstantOfShape")
def constant_of_shape(inputs: Inputs, attributes: Attributes) -> Outputs:
    """One value, float32 zero by default, in the shape given; it occupies one element."""
    value = np.asarray(attributes.get("value", np.zeros(1, np.float32)))
    return (np.broadcast_to(value.reshape(()), ints_of(required(inputs))),)


@kernel("Range")
def range_of(inputs: Inputs, attributes: Attributes) -> Outputs:
    start, limit, delta = (array.reshape(())[()] for array in present(inputs))
    count = max(int(np.ceil((limit - start) / delta)), 0)
    return (np.asarray(start + np.arange(count, dtype=start.dtype) * delta, start.dtype),)


@kernel("EyeLike")
def eye_like(inputs: Inputs, attributes: Attributes) -> Outputs:
    x = required(inputs)
    dtype = DTYPES[integer(attributes, "dtype", 0)] if "dtype" in attributes else x.dtype
    return (np.eye(x.shape[0], x.shape[1], k=integer(attributes, "k", 0), dtype=dtype),)


@kernel("Trilu")
def trilu(inputs: Inputs, attributes: Attributes) -> Outputs:
    """The upper (default) or lower triangle of each matrix, the rest zero."""
    x, diagonal = required(inputs), optional(inputs, 1)
    k = 0 if diagonal is None else int(diagonal.reshape(()))
    return (np.triu(x, k) if integer(attributes, "upper", 1) else np.tril(x, k),)
