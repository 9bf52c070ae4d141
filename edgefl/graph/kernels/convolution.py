# SPDX-License-Identifier: Apache-2.0
"""Convolutions over any number of spatial axes: im2col and matrix products; depthwise, shifted products."""

from __future__ import annotations

import math

import numpy as np

from edgefl.graph.kernels.arguments import integer, integers, optional, required, same_dtype, text
from edgefl.graph.kernels.linear import product
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.kernels.windows import Windows, inner, pad_spatial, window_view, windows
from edgefl.graph.model import Array

_CHUNK = 1 << 22  # elements of im2col columns made at a time
_TAPS = 64  # kernel places up to which shifted products are cheaper than columns


@kernel("Conv", batchwise=True)
def conv(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Cross-correlation of x `[N, C, spatial...]` with w `[M, C / group, kernel...]`, plus bias `[M]`."""
    x, w, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    same_dtype(x, w, bias)
    group = _check(x, w, attributes, w.shape[1], w.shape[0])
    geometry = windows(x.shape, w.shape[2:], attributes)
    x = pad_spatial(x, geometry, 0)
    depthwise = group > 1 and w.shape[1] == 1 and math.prod(geometry.kernel) <= _TAPS
    out = _depthwise(x, w, geometry) if depthwise else _by_columns(x, w, geometry, group)
    return (out if bias is None else _with_bias(out, bias),)


def _check(x: Array, w: Array, attributes: Attributes, per_group: int, filters: int) -> int:
    """The number of groups; raises ValueError where shapes and attributes disagree."""
    group = integer(attributes, "group", 1)
    if x.ndim != w.ndim or x.ndim < 3 or group < 1 or x.shape[1] != per_group * group or filters % group:
        raise ValueError(f"input {x.shape} and filters {w.shape} do not fit with {group} groups")
    if integers(attributes, "kernel_shape", w.shape[2:]) != w.shape[2:]:
        raise ValueError(f"kernel_shape {attributes['kernel_shape']} differs from the filters' {w.shape}")
    return group


def _with_bias(out: Array, bias: Array) -> Array:
    return np.asarray(out + bias.reshape(-1, *(1,) * (out.ndim - 2)))


def _depthwise(x: Array, w: Array, geometry: Windows) -> Array:
    """One input channel per group: the sum over the kernel's places of a shifted input times a weight."""
    n, groups = x.shape[:2]
    ones = (1,) * len(geometry.out)
    x = x.reshape(n, groups, 1, *x.shape[2:])
    w = w.reshape(groups, -1, math.prod(geometry.kernel))
    out = np.zeros((n, groups, w.shape[1], *geometry.out), x.dtype)
    for i, tap in enumerate(geometry.taps()):
        weight = w[:, :, i].reshape(groups, w.shape[1], *ones)
        out += x[tap] * weight
    return out.reshape(n, groups * w.shape[1], *geometry.out)


def _by_columns(x: Array, w: Array, geometry: Windows, group: int) -> Array:
    n, places = x.shape[0], math.prod(geometry.out)
    depth = w.shape[1] * math.prod(geometry.kernel)
    matrix = np.ascontiguousarray(w).reshape(group, -1, depth)
    if geometry.trivial:
        return product(matrix, x.reshape(n, group, depth, places)).reshape(n, w.shape[0], *geometry.out)
    view = window_view(x, geometry)
    out = np.empty((n, group, matrix.shape[1], places), x.dtype)
    step = max(1, _CHUNK // max(1, group * depth * places))
    for start in range(0, n, step):
        chunk = view[start : start + step]
        np.matmul(
            matrix,
            np.ascontiguousarray(chunk).reshape(len(chunk), group, depth, places),
            out=out[start : start + step],
        )
    return out.reshape(n, w.shape[0], *geometry.out)


@kernel("ConvTranspose", batchwise=True)
def conv_transpose(inputs: Inputs, attributes: Attributes) -> Outputs:
    """The transpose of Conv: x `[N, C, spatial...]`, w `[C, M / group, kernel...]`, bias `[M]`."""
    x, w, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    same_dtype(x, w, bias)
    group = integer(attributes, "group", 1)
    _check(x, w, attributes, w.shape[0] // max(group, 1), w.shape[0])
    geometry, size = _scattered(x.shape[2:], w.shape[2:], attributes)
    kernel_size = math.prod(geometry.kernel)
    columns = _columns(x, w, group).reshape(x.shape[0], w.shape[1] * group, kernel_size, *geometry.out)
    full = [max(f, b + n) for f, b, n in zip(_extent(geometry), geometry.before, size, strict=True)]
    out = np.zeros((*columns.shape[:2], *full), x.dtype)
    for i, tap in enumerate(geometry.taps()):
        out[tap] += columns[:, :, i]
    out = np.ascontiguousarray(out[inner(geometry.before, size)])
    return (out if bias is None else _with_bias(out, bias),)


def _extent(geometry: Windows) -> list[int]:
    """Size of each axis that the windows reach."""
    axes = zip(geometry.out, geometry.kernel, geometry.strides, geometry.dilations, strict=True)
    return [(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in axes]


def _columns(x: Array, w: Array, group: int) -> Array:
    """`[N, group, M / group * kernel, places]`: what each input element adds to each place of its window."""
    n, places = x.shape[0], math.prod(x.shape[2:])
    matrix = w.reshape(group, w.shape[0] // group, -1).swapaxes(1, 2)
    return product(matrix, x.reshape(n, group, matrix.shape[2], places))


def _scattered(
    spatial: tuple[int, ...], kernel_shape: tuple[int, ...], attributes: Attributes
) -> tuple[Windows, tuple[int, ...]]:
    """Windows over the output, one per input element, and the output's spatial shape."""
    rank = len(spatial)
    ones, none = (1,) * rank, (0,) * rank
    strides, dilations = integers(attributes, "strides", ones), integers(attributes, "dilations", ones)
    extra, pads = integers(attributes, "output_padding", none), integers(attributes, "pads", none * 2)
    if not rank == len(strides) == len(dilations) == len(extra) == len(pads) // 2 or len(pads) % 2:
        raise ValueError(f"strides {strides}, dilations {dilations}, output_padding {extra}, pads {pads}")
    if min((*strides, *dilations)) < 1 or min((*extra, *pads)) < 0:
        raise ValueError(f"strides {strides}, dilations {dilations}, output_padding {extra}, pads {pads}")
    full = tuple(
        (n - 1) * s + e + (k - 1) * d + 1
        for n, s, e, k, d in zip(spatial, strides, extra, kernel_shape, dilations, strict=True)
    )
    before, size = _cut(full, spatial, strides, pads, attributes)
    if min(size) < 1:
        raise ValueError(f"pads {pads} leave nothing of the output {full}")
    return Windows(kernel_shape, strides, dilations, before, none, spatial), size


def _cut(
    full: tuple[int, ...],
    spatial: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    attributes: Attributes,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Elements cut before the output on each axis, and its spatial shape."""
    rank, auto = len(full), text(attributes, "auto_pad", "NOTSET")
    target = integers(attributes, "output_shape", ())
    if auto in ("SAME_UPPER", "SAME_LOWER") and not target:
        target = tuple(n * s for n, s in zip(spatial, strides, strict=True))
    if not target:
        pads = (0,) * 2 * rank if auto == "VALID" else pads
        return pads[:rank], tuple(f - b - a for f, b, a in zip(full, pads[:rank], pads[rank:], strict=True))
    total = [max(f - t, 0) for f, t in zip(full, target[-rank:], strict=True)]
    before = tuple(n // 2 if auto == "SAME_UPPER" else n - n // 2 for n in total)
    return before, target[-rank:]
