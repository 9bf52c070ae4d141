# SPDX-License-Identifier: Apache-2.0
"""Resize: nearest neighbour, linear and cubic interpolation, one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgefl.graph.kernels.arguments import axes_of, integer, integers, ints_of, optional, real, required, text
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array

_COORDINATES: dict[str, Callable[[Array, float, int, float], Array]] = {
    "half_pixel": lambda i, scale, n, out: (i + 0.5) / scale - 0.5,
    "half_pixel_symmetric": lambda i, scale, n, out: n / 2 * (1 - int(out) / out) + (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, n, out: (i + 0.5) / scale - 0.5 if out > 1 else i * 0.0,
    "asymmetric": lambda i, scale, n, out: i / scale,
    "align_corners": lambda i, scale, n, out: i * (n - 1) / (out - 1) if out > 1 else i * 0.0,
}
"""Output indices, scale, input size, output size (possibly fractional) to input coordinates."""

_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@kernel("Resize")
def resize(inputs: Inputs, attributes: Attributes) -> Outputs:
    """The input resampled to given sizes or by given scales, or (`tf_crop_and_resize`) a region of it."""
    x, roi = required(inputs), optional(inputs, 1)
    axes = axes_of(integers(attributes, "axes", tuple(range(x.ndim))), x.ndim)
    targets = _targets(inputs, [x.shape[axis] for axis in axes], attributes)
    crop = attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    for i, (axis, (size, scale)) in enumerate(zip(axes, targets, strict=True)):
        if crop:
            start, end = required([roi]).reshape(2, -1)[:, i].tolist()
            x = _crop(x, axis, size, start, end, attributes)
        elif size != x.shape[axis] or scale != 1:
            x = _interpolate(x, axis, _places(x.shape[axis], size, scale, attributes), scale, attributes)
    return (x,)


def _crop(x: Array, axis: int, size: int, start: float, end: float, attributes: Attributes) -> Array:
    """The part between `start` and `end` (fractions of the axis); outside the input a constant."""
    last = x.shape[axis] - 1
    places = np.linspace(start * last, end * last, size) if size > 1 else np.array([(start + end) / 2 * last])
    out = _interpolate(x, axis, places, 1.0, attributes)
    outside = np.expand_dims((places < 0) | (places > last), [a for a in range(x.ndim) if a != axis])
    return np.where(outside, x.dtype.type(real(attributes, "extrapolation_value", 0.0)), out)


def _places(n: int, size: int, scale: float, attributes: Attributes) -> Array:
    """Input coordinates of the output's elements along an axis of n elements."""
    transformation = text(attributes, "coordinate_transformation_mode", "half_pixel")
    if transformation not in _COORDINATES:
        raise ValueError(f"coordinate mode {transformation!r} is none of {', '.join(_COORDINATES)}")
    return _COORDINATES[transformation](np.arange(size, dtype=np.float64), scale, n, scale * n)


def _targets(inputs: Inputs, shape: list[int], attributes: Attributes) -> list[tuple[int, float]]:
    """Output size and scale of each axis."""
    scales, sizes = optional(inputs, 2), optional(inputs, 3)
    if scales is not None and scales.size:
        factors = [float(s) for s in scales.reshape(-1)]
        return [(math.floor(n * s), s) for n, s in zip(shape, factors, strict=True)]
    if sizes is None:
        raise ValueError("Resize needs scales or sizes")
    given = ints_of(sizes)
    policy = text(attributes, "keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return [(size, size / n) for size, n in zip(given, shape, strict=True)]
    pick = {"not_larger": min, "not_smaller": max}[policy]
    factor = pick(size / n for size, n in zip(given, shape, strict=True))
    return [(math.floor(n * factor + 0.5), factor) for n in shape]


def _interpolate(x: Array, axis: int, places: Array, scale: float, attributes: Attributes) -> Array:
    n, mode = x.shape[axis], text(attributes, "mode", "nearest")
    if mode == "nearest":
        rounding = _NEAREST[text(attributes, "nearest_mode", "round_prefer_floor")]
        return np.take(x, np.clip(rounding(places).astype(np.intp), 0, n - 1), axis)
    if mode not in ("linear", "cubic"):
        raise ValueError(f"mode {mode!r} is none of nearest, linear, cubic")
    stretch = max(1.0, 1 / scale) if integer(attributes, "antialias", 0) else 1.0
    real_type = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    matrix = _weights(places, n, mode, stretch, attributes).astype(real_type)
    mixed = np.moveaxis(np.tensordot(x.astype(matrix.dtype, copy=False), matrix, (axis, 1)), -1, axis)
    return np.asarray(mixed.astype(x.dtype, copy=False))


def _weights(places: Array, n: int, mode: str, stretch: float, attributes: Attributes) -> Array:
    """`[out, in]` interpolation weights for a filter widened by `stretch`."""
    a = real(attributes, "cubic_coeff_a", -0.75)
    radius = math.ceil((1 if mode == "linear" else 2) * stretch)
    taps = np.floor(places)[:, None] + np.arange(1 - radius, radius + 1)
    distance = np.abs(places[:, None] - taps) / stretch
    weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, a)
    if integer(attributes, "exclude_outside", 0):
        weights = np.where((taps < 0) | (taps >= n), 0, weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(places), n))
    rows = np.arange(len(places))[:, None]
    np.add.at(matrix, (rows, np.clip(taps, 0, n - 1).astype(np.int64)), weights)
    return matrix


def _cubic(t: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (1981) at distances t >= 0."""
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))
