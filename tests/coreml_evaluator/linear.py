# SPDX-License-Identifier: Apache-2.0
"""Products: linear, matmul, einsum, attention, and the convolutions of MIL in one to three dimensions."""

from __future__ import annotations

import itertools
import math

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused, Unsupported
from tests.coreml_evaluator.registry import ints, op
from tests.coreml_evaluator.windows import paddings, windows


@op("matmul", constant="transpose_x transpose_y")
def matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    a = np.swapaxes(x, -1, -2) if transpose_x and x.ndim > 1 else x
    b = np.swapaxes(y, -1, -2) if transpose_y and y.ndim > 1 else y
    return np.asarray(a @ b)


@op("linear", constant="weight bias", same="x weight bias")
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    y = x @ weight.T
    return np.asarray(y if bias is None else y + bias)


@op("einsum", constant="equation", same="values")
def einsum(values: list[Array], equation: str) -> Array:
    return np.asarray(np.einsum(equation, *values))


@op("scaled_dot_product_attention", same="query key value")
def attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    scores = query @ np.swapaxes(key, -1, -2) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        scores = scores + (np.where(attn_mask, 0, -np.inf) if attn_mask.dtype == np.bool_ else attn_mask)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True) @ value)


@op("conv", constant="bias strides pad_type pad dilations groups", same="x weight bias")
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Array | None = None,
    pad_type: str = "valid",
    pad: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    spatial = x.ndim - 2
    stride, dilation = ints(strides) if strides is not None else [1] * spatial, _ones(dilations, spatial)
    if x.shape[1] != weight.shape[1] * int(groups) or weight.shape[0] % int(groups):
        raise Refused(f"conv of {x.shape} by {weight.shape} in {int(groups)} groups")
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    pads = paddings(pad_type, x.shape[2:], reach, stride, pad)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    seen = windows(padded, weight.shape[2:], stride, dilation)
    outputs = [
        np.tensordot(
            part, kernel, axes=([1, *range(2 + spatial, 2 + 2 * spatial)], [1, *range(2, 2 + spatial)])
        )
        for part, kernel in zip(np.split(seen, int(groups), 1), np.split(weight, int(groups)), strict=True)
    ]
    y = np.moveaxis(np.concatenate(outputs, axis=-1), -1, 1)
    return y if bias is None else np.asarray(y + bias.reshape(-1, *[1] * spatial))


@op(
    "conv_transpose",
    constant="weight bias pad output_shape pad_type strides dilations groups",
    same="x weight bias",
)
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Array | None = None,
    output_shape: Array | None = None,
    pad_type: str = "valid",
    strides: Array | None = None,
    dilations: Array | None = None,
    groups: Array | int = 1,
) -> Array:
    spatial = x.ndim - 2
    stride, dilation = _ones(strides, spatial), _ones(dilations, spatial)
    full = transposed(x, weight, stride, dilation, int(groups))
    wanted = ints(output_shape)[2:] if output_shape is not None else None
    if pad_type == "custom":
        edges = ints(pad)
        begins = edges[::2]
        sizes = wanted or [n - b - e for n, b, e in zip(full.shape[2:], begins, edges[1::2], strict=True)]
    elif pad_type == "same":
        sizes = wanted or [n * s for n, s in zip(x.shape[2:], stride, strict=True)]
        begins = [max(0, n - size) // 2 for n, size in zip(full.shape[2:], sizes, strict=True)]
    elif pad_type == "valid":
        sizes, begins = wanted or list(full.shape[2:]), [0] * spatial
    else:
        raise Unsupported(f"conv_transpose with pad_type {pad_type!r}")
    y = _cut(full, begins, sizes)
    return y if bias is None else np.asarray(y + bias.reshape(-1, *[1] * spatial))


def transposed(x: Array, weight: Array, stride: list[int], dilation: list[int], groups: int) -> Array:
    """Every input value spreads the kernel `[C_in, C_out/groups, *K]` over the output, nothing cut off."""
    shape = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape[2:], stride, weight.shape[2:], dilation, strict=True)
    ]
    outputs = []
    for part, kernel in zip(np.split(x, groups, 1), np.split(weight, groups), strict=True):
        total = np.zeros((x.shape[0], weight.shape[1], *shape), np.float32)
        for position in itertools.product(*map(range, weight.shape[2:])):
            spread = np.moveaxis(np.tensordot(part, kernel[(..., *position)], axes=([1], [0])), -1, 1)
            where = tuple(
                slice(p * d, p * d + (n - 1) * s + 1, s)
                for p, d, n, s in zip(position, dilation, x.shape[2:], stride, strict=True)
            )
            total[(slice(None), slice(None), *where)] += spread
        outputs.append(total)
    return np.concatenate(outputs, axis=1)


def _cut(full: Array, begins: list[int], sizes: list[int]) -> Array:
    """From `begins` on, with zeros past the end where more is asked than there is."""
    kept = full[(..., *[slice(b, b + n) for b, n in zip(begins, sizes, strict=True)])]
    return np.pad(
        kept, [(0, 0), (0, 0), *[(0, n - have) for n, have in zip(sizes, kept.shape[2:], strict=True)]]
    )


def _ones(values: Array | None, count: int) -> list[int]:
    return [1] * count if values is None else ints(values)
