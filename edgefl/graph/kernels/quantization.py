# SPDX-License-Identifier: Apache-2.0
"""Conversions between real numbers and 8- or 16-bit integers with a scale and a zero point."""

from __future__ import annotations

import numpy as np

from edgefl.graph.kernels.arguments import axis_of, integer, optional, required
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array


def _along_axis(parameter: Array, x: Array, attributes: Attributes) -> Array:
    """A scalar, or a vector laid along `axis` so that it broadcasts to the tensor."""
    if parameter.size == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    if parameter.ndim != 1:
        raise ValueError(f"scales and zero points are scalars or vectors, given shape {parameter.shape}")
    axis = axis_of(integer(attributes, "axis", 1), x.ndim)
    return parameter.reshape(-1, *(1,) * (x.ndim - axis - 1))


@kernel("QuantizeLinear")
def quantize(inputs: Inputs, attributes: Attributes) -> Outputs:
    """round(x / scale) + zero point, halves to even, saturated to the zero point's type (default uint8)."""
    x, scale = required(inputs), required(inputs, 1)
    zero = optional(inputs, 2)
    zero = np.zeros((), np.uint8) if zero is None else zero
    limits = np.iinfo(zero.dtype)
    steps = np.rint(x / _along_axis(scale, x, attributes)) + _along_axis(zero, x, attributes).astype(
        np.float64
    )
    return (np.asarray(np.clip(steps, limits.min, limits.max)).astype(zero.dtype),)


@kernel("DequantizeLinear")
def dequantize(inputs: Inputs, attributes: Attributes) -> Outputs:
    """(x - zero point) * scale, in the scale's dtype."""
    x, scale, zero = required(inputs), required(inputs, 1), optional(inputs, 2)
    shifted = x.astype(np.int64)
    if zero is not None:
        shifted = shifted - _along_axis(zero, x, attributes).astype(np.int64)
    return (np.asarray(shifted.astype(scale.dtype) * _along_axis(scale, x, attributes), scale.dtype),)


@kernel("DynamicQuantizeLinear")
def dynamic_quantize(inputs: Inputs, attributes: Attributes) -> Outputs:
    """uint8 values over the range of the data, which always holds zero; the scale; the zero point."""
    x = required(inputs)
    low, high = min(x.min(initial=0), 0), max(x.max(initial=0), 0)
    scale = np.asarray((high - low) / np.float32(255), np.float32)
    zero = np.asarray(np.clip(np.rint(-low / scale), 0, 255)).astype(np.uint8)
    return *quantize([x, scale, zero], {}), scale, zero
