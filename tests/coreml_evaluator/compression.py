# SPDX-License-Identifier: Apache-2.0
"""Compressed constants and quantization of MIL."""

from __future__ import annotations

import math

import numpy as np

from tests.coreml_evaluator.blobs import Array, unpack
from tests.coreml_evaluator.errors import Refused
from tests.coreml_evaluator.registry import ints, op
from tests.coreml_evaluator.shaping import bounded


def _along(values: Array, like: Array, axis: Array | int | None) -> Array:
    """A scalar, or a vector along one axis of `like`."""
    if values.ndim == 0:
        return values
    if axis is None or values.ndim != 1 or values.shape[0] != like.shape[int(axis)]:
        raise Refused(f"a scale of shape {values.shape} along axis {axis} of {like.shape}")
    place = int(axis) % like.ndim
    return values.reshape([-1 if i == place else 1 for i in range(like.ndim)])


def _scaled(data: Array, scale: Array, offset: Array | None) -> Array:
    shifted = data.astype(np.float32) - (0 if offset is None else offset.astype(np.float32))
    return np.asarray(shifted * scale.astype(np.float32))


@op("constexpr_affine_dequantize", constant="quantized_data zero_point scale axis", same="")
def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    return _scaled(
        quantized_data, _along(scale, quantized_data, axis), _along(zero_point, quantized_data, axis)
    )


@op("constexpr_blockwise_shift_scale", constant="data scale offset", same="")
def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    return _scaled(data, _blocks(scale, data.shape), None if offset is None else _blocks(offset, data.shape))


def _blocks(values: Array, shape: tuple[int, ...]) -> Array:
    """Each value repeated over its block; the blocks fill `shape`."""
    if values.ndim != len(shape) or any(n % m for n, m in zip(shape, values.shape, strict=True)):
        raise Refused(f"blocks of {values.shape} do not fill {shape}")
    for axis, size in enumerate(shape):
        values = np.repeat(values, size // values.shape[axis], axis)
    return values


@op("constexpr_lut_to_dense", constant="indices lut shape vector_axis", same="")
def lut_to_dense(
    indices: Array, lut: Array, shape: Array | None = None, vector_axis: Array | None = None
) -> Array:
    if shape is not None:  # the form of iOS 16: packed bits, one table
        bits = int(math.log2(lut.size))
        bounded(math.prod(ints(shape)))
        return np.asarray(lut[unpack(indices, bits, math.prod(ints(shape)))].reshape(ints(shape)))
    tables = lut
    for axis, size in enumerate(indices.shape):
        if size % lut.shape[axis]:
            raise Refused(f"tables {lut.shape} for indices {indices.shape}")
        tables = np.repeat(tables, size // lut.shape[axis], axis)
    chosen = np.take_along_axis(tables, indices.astype(np.int64)[..., None, None], -2)[..., 0, :]
    if lut.shape[-1] == 1:
        return np.asarray(chosen[..., 0])
    if vector_axis is None:
        raise Refused("vectors in a lookup table need vector_axis")
    axis = int(vector_axis) % indices.ndim
    sizes = [n * lut.shape[-1] if i == axis else n for i, n in enumerate(indices.shape)]
    return np.moveaxis(chosen, -1, axis + 1).reshape(sizes)


@op("constexpr_sparse_to_dense", constant="nonzero_data mask shape", same="")
def sparse_to_dense(nonzero_data: Array, mask: Array, shape: Array | None = None) -> Array:
    sizes = list(mask.shape) if shape is None else ints(shape)
    bounded(math.prod(sizes))
    flags = (mask if shape is None else unpack(mask, 1, math.prod(sizes))).reshape(-1) != 0
    if int(flags.sum()) != nonzero_data.size:
        raise Refused(f"{nonzero_data.size} values for {int(flags.sum())} places")
    dense = np.zeros(flags.size, nonzero_data.dtype)
    dense[flags] = nonzero_data.reshape(-1)
    return dense.reshape(sizes)


@op("constexpr_cast", constant="source_val output_dtype", own_type=True)
def constexpr_cast(source_val: Array, output_dtype: str) -> Array:
    return source_val.astype({"fp16": np.float16, "fp32": np.float32}[output_dtype])


@op("quantize", constant="zero_point scale axis output_dtype", same="input scale", own_type=True)
def quantize(
    input: Array, scale: Array, output_dtype: str, zero_point: Array | None = None, axis: Array | None = None
) -> Array:
    steps = np.round(input / _along(scale, input, axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis).astype(np.float32)
    limits = np.iinfo(output_dtype)
    return np.clip(steps, limits.min, limits.max).astype(output_dtype)


@op("dequantize", constant="zero_point scale axis", same="input zero_point")
def dequantize(
    input: Array, scale: Array, zero_point: Array | None = None, axis: Array | None = None
) -> Array:
    return _scaled(
        input, _along(scale, input, axis), None if zero_point is None else _along(zero_point, input, axis)
    )
