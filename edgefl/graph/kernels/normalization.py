# SPDX-License-Identifier: Apache-2.0
"""Normalisations, in inference mode where they have two."""

from __future__ import annotations

import numpy as np

from edgefl.graph.kernels.arguments import axis_of, integer, optional, present, real, required, same_dtype
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array


def _standardise(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """Zero mean and unit variance over the axes; also the mean and the inverse standard deviation."""
    mean = np.mean(x, axis=axes, keepdims=True)
    centred = x - mean
    variance = np.mean(centred * centred, axis=axes, keepdims=True)
    inverse = x.dtype.type(1) / np.sqrt(variance + x.dtype.type(epsilon))
    return np.asarray(centred * inverse), np.asarray(mean), np.asarray(inverse)


def _per_channel(vector: Array, rank: int) -> Array:
    return vector.reshape(-1, *(1,) * (rank - 2))


@kernel("BatchNormalization")
def batch_normalization(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Normalisation of `[N, C, ...]` by given statistics `[C]`; training mode is refused."""
    if integer(attributes, "training_mode", 0):
        raise ValueError(
            "BatchNormalization in training mode changes its statistics; export it in evaluation mode"
        )
    x, *vectors = present(inputs)
    scale, bias, mean, variance = (_per_channel(v, x.ndim) for v in vectors)
    factor = scale / np.sqrt(variance + variance.dtype.type(real(attributes, "epsilon", 1e-5)))
    return (np.asarray(x * factor + (bias - mean * factor), x.dtype),)


@kernel("InstanceNormalization")
def instance_normalization(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, scale, bias = present(inputs)
    same_dtype(x, scale, bias)
    normal, _, _ = _standardise(x, tuple(range(2, x.ndim)), real(attributes, "epsilon", 1e-5))
    return (np.asarray(normal * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)),)


@kernel("LayerNormalization")
def layer_normalization(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Normalisation over the axes from `axis` on; also the mean and the inverse standard deviation."""
    x, scale, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    same_dtype(x, scale, bias)
    axes = tuple(range(axis_of(integer(attributes, "axis", -1), x.ndim), x.ndim))
    normal, mean, inverse = _standardise(x, axes, real(attributes, "epsilon", 1e-5))
    out = normal * scale
    return np.asarray(out if bias is None else out + bias), mean, inverse


@kernel("GroupNormalization")
def group_normalization(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Normalisation of `[N, C, ...]` within groups of channels.

    Scale and bias are `[num_groups]` as in opset 18, or `[C]` as from opset 21 on.
    """
    x, scale, bias = present(inputs)
    same_dtype(x, scale, bias)
    groups = integer(attributes, "num_groups", 0)
    channels = x.shape[1]
    if groups < 1 or channels % groups or scale.shape != bias.shape or scale.size not in (groups, channels):
        raise ValueError(f"{groups} groups for shape {x.shape}, scale {scale.shape}, bias {bias.shape}")
    grouped = x.reshape(x.shape[0], groups, -1)
    normal, _, _ = _standardise(grouped, (2,), real(attributes, "epsilon", 1e-5))
    parts = normal.reshape(x.shape[0], scale.size, -1)
    return (np.asarray(parts * scale.reshape(-1, 1) + bias.reshape(-1, 1)).reshape(x.shape),)


@kernel("LRN")
def local_response(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Division by a power of the mean square over `size` neighbouring channels of `[N, C, ...]`."""
    x, size = required(inputs), integer(attributes, "size", 1)
    scalar = x.dtype.type
    low = (size - 1) // 2
    padding = [(0, 0), (low, size - 1 - low), *[(0, 0)] * (x.ndim - 2)]
    squares = np.pad(x * x, padding)
    total = sum((squares[:, i : i + x.shape[1]] for i in range(size)), np.zeros_like(x))
    base = scalar(real(attributes, "bias", 1.0)) + scalar(real(attributes, "alpha", 1e-4) / size) * total
    return (np.asarray(x / base ** scalar(real(attributes, "beta", 0.75))),)
