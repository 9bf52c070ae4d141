# SPDX-License-Identifier: Apache-2.0
"""Resizes of MIL: the grid is the documentation's, one function per way of sampling."""

from __future__ import annotations

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused, Unsupported
from tests.coreml_evaluator.registry import ints, op


def grid(mode: str, size: int, out: int) -> Array:
    """Where along a dimension of `size` each of `out` samples lies."""
    i = np.arange(out, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        points = (
            i * ((size - 1) / (out - 1))
            if out > 1
            else np.full(1, 0.0 if mode.startswith("S") else (size - 1) / 2)
        )
    elif mode == "DEFAULT":
        points = i * ((size - size / out) / (out - 1)) if out > 1 else np.zeros(1)
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / out
        points = 0.5 * delta + i * delta
    elif mode == "UNALIGN_CORNERS":
        points = i * (size / out) + 0.5 * (size / out) - 0.5
    else:
        raise Refused(f"sampling mode {mode!r}")
    return np.clip(points, 0, size - 1)


def linear(x: Array, axis: int, points: Array) -> Array:
    low = np.floor(points).astype(np.int64)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    share = (points - low).astype(np.float32).reshape(-1, *[1] * (x.ndim - 1 - axis % x.ndim))
    return np.asarray(np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share)


def nearest(x: Array, axis: int, out: int) -> Array:
    """By whole factors only: how other factors round is not documented."""
    factor, rest = divmod(out, x.shape[axis])
    if rest or not factor:
        raise Unsupported(f"nearest neighbours from {x.shape[axis]} to {out}, which is no multiple of it")
    return np.repeat(x, factor, axis)


@op("upsample_nearest_neighbor", constant="scale_factor_height scale_factor_width")
def upsample_nearest(
    x: Array, scale_factor_height: Array | int = 1, scale_factor_width: Array | int = 1
) -> Array:
    height = int(np.floor(float(scale_factor_height) * x.shape[-2]))
    return nearest(nearest(x, -2, height), -1, int(np.floor(float(scale_factor_width) * x.shape[-1])))


@op("resize_nearest_neighbor", constant="target_size_height target_size_width")
def resize_nearest(x: Array, target_size_height: Array, target_size_width: Array) -> Array:
    return nearest(nearest(x, -2, int(target_size_height)), -1, int(target_size_width))


@op("resize_bilinear", constant="target_size_height target_size_width sampling_mode")
def resize_bilinear(
    x: Array,
    target_size_height: Array | int = 1,
    target_size_width: Array | int = 1,
    sampling_mode: str = "DEFAULT",
) -> Array:
    for axis, out in ((-2, int(target_size_height)), (-1, int(target_size_width))):
        x = linear(x, axis, grid(sampling_mode, x.shape[axis], out))
    return x


@op("upsample_bilinear", constant="scale_factor_height scale_factor_width align_corners half_pixel_centers")
def upsample_bilinear(
    x: Array,
    scale_factor_height: Array | int = 1,
    scale_factor_width: Array | int = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Array:
    half = not align_corners if half_pixel_centers is None else bool(half_pixel_centers)
    if align_corners and half:
        raise Refused("upsample_bilinear with align_corners and half_pixel_centers")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "DEFAULT"
    for axis, factor in ((-2, scale_factor_height), (-1, scale_factor_width)):
        x = linear(x, axis, grid(mode, x.shape[axis], int(np.floor(float(factor) * x.shape[axis]))))
    return x


@op("resize", constant="resized_dims interpolation_mode sampling_mode")
def resize(
    x: Array,
    shape: Array,
    resized_dims: Array,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    count = int(resized_dims)
    for axis, out in zip(range(-count, 0), ints(shape)[len(ints(shape)) - count :], strict=True):
        wanted = out or x.shape[axis]
        if interpolation_mode == "NEAREST_NEIGHBOR":
            x = nearest(x, axis, wanted)
        elif interpolation_mode == "LINEAR":
            x = linear(x, axis, grid(sampling_mode, x.shape[axis], wanted))
        else:
            raise Refused(f"interpolation mode {interpolation_mode!r}")
    return x
