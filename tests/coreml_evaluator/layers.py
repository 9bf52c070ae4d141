# SPDX-License-Identifier: Apache-2.0
"""Layers of neural network models, forward and backward.

Values are `[B, C, H, W]`: of the five axes of the classic form the sequence is left out. Each layer is a
function of its message, its weights and its inputs; it gives its output and a function from the output's
gradient to those of the inputs and of the weights. Layouts are those of NeuralNetwork.proto: inner
product `[out, in]`, convolution `[out, in/groups, kH, kW]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import MalformedFile, Refused, Unsupported
from tests.coreml_evaluator.linear import transposed
from tests.coreml_evaluator.windows import windows

Weights = Mapping[str, Array]
Back = Callable[[Array], tuple[list[Array], dict[str, Array]]]
LayerFunction = Callable[[Any, Weights, list[Array]], tuple[Array, Back]]

LAYERS: dict[str, LayerFunction] = {}
Pads = list[tuple[int, int]]


def layer(kind: str) -> Callable[[LayerFunction], LayerFunction]:
    def register(function: LayerFunction) -> LayerFunction:
        LAYERS[kind] = function
        return function

    return register


@layer("innerProduct")
def inner_product(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    (x,) = inputs
    if x.shape[1:] != (p.inputChannels, 1, 1):
        raise Refused(f"an inner product of {p.inputChannels} channels on {x.shape[1:]}")
    flat = x[:, :, 0, 0]
    y = flat @ w["weight"].T + w.get("bias", np.float32(0))

    def back(dy: Array) -> tuple[list[Array], dict[str, Array]]:
        d = dy[:, :, 0, 0]
        return [(d @ w["weight"])[:, :, None, None]], {"weight": d.T @ flat, "bias": d.sum(axis=0)}

    return y[:, :, None, None], back


@layer("convolution")
def convolution(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    if p.isDeconvolution:
        raise Unsupported("a convolution layer that is a deconvolution")
    (x,) = inputs
    weight, groups = w["weight"], int(p.nGroups) or 1
    stride, dilation = _pair(p.stride), _pair(p.dilationFactor)
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    pads = _borders(p, "ConvolutionPaddingType", x.shape[2:], reach, stride)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    seen = np.split(windows(padded, weight.shape[2:], stride, dilation), groups, 1)
    kernels = np.split(weight, groups)
    y = np.concatenate([np.einsum("bchwij,ocij->bohw", s, k) for s, k in zip(seen, kernels, strict=True)], 1)

    def back(dy: Array) -> tuple[list[Array], dict[str, Array]]:
        parts = np.split(dy, groups, 1)
        dw = [np.einsum("bchwij,bohw->ocij", s, d) for s, d in zip(seen, parts, strict=True)]
        spread = transposed(dy, weight, stride, dilation, groups)
        return [_unpadded(spread, padded.shape, pads)], {
            "weight": np.concatenate(dw),
            "bias": dy.sum(axis=(0, 2, 3)),
        }

    return y + w.get("bias", np.zeros(1, np.float32))[None, :, None, None], back


@layer("pooling")
def pooling(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    (x,) = inputs
    kind = p.PoolingType.Name(p.type)
    if kind not in ("MAX", "AVERAGE"):
        raise Unsupported(f"a pooling layer of type {kind}")
    kernel = list(x.shape[2:]) if p.globalPooling else _pair(p.kernelSize)
    stride = [1, 1] if p.globalPooling else _pair(p.stride)
    pads = (
        [(0, 0), (0, 0)]
        if p.globalPooling
        else _borders(p, "PoolingPaddingType", x.shape[2:], kernel, stride)
    )
    filling = -np.inf if kind == "MAX" else 0.0
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=filling)
    seen = windows(padded, kernel, stride, [1, 1])
    flat = seen.reshape(*seen.shape[:4], -1)
    if kind == "MAX":
        first = flat.argmax(axis=-1)
        y, share = flat.max(axis=-1), first[..., None] == np.arange(flat.shape[-1])
    else:
        real = np.pad(np.ones((1, 1, *x.shape[2:]), np.float32), [(0, 0), (0, 0), *pads])
        counted = (
            windows(real, kernel, stride, [1, 1]).sum(axis=(-1, -2))
            if p.avgPoolExcludePadding
            else np.float32(math.prod(kernel))
        )
        y = flat.sum(axis=-1) / counted
        share = np.broadcast_to(1 / np.asarray(counted)[..., None], flat.shape)

    def back(dy: Array) -> tuple[list[Array], dict[str, Array]]:
        dx = np.zeros(padded.shape, np.float32)
        parts = (dy[..., None] * share).reshape(seen.shape)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                dx[
                    :,
                    :,
                    i : i + dy.shape[2] * stride[0] : stride[0],
                    j : j + dy.shape[3] * stride[1] : stride[1],
                ] += parts[..., i, j]
        return [_unpadded(dx, padded.shape, pads)], {}

    return y, back


_ACTIVATIONS: dict[str, Callable[[Any, Array], tuple[Array, Array]]] = {
    "ReLU": lambda p, x: (np.maximum(x, 0), (x > 0).astype(np.float32)),
    "leakyReLU": lambda p, x: (np.where(x > 0, x, p.alpha * x), np.where(x > 0, 1, p.alpha)),
    "linear": lambda p, x: (p.alpha * x + p.beta, np.full_like(x, p.alpha)),
    "tanh": lambda p, x: (np.tanh(x), 1 - np.tanh(x) ** 2),
    "sigmoid": lambda p, x: (1 / (1 + np.exp(-x)), 1 / (1 + np.exp(-x)) / (1 + np.exp(x))),
    "sigmoidHard": lambda p, x: (
        np.clip(p.alpha * x + p.beta, 0, 1),
        np.where((p.alpha * x + p.beta > 0) & (p.alpha * x + p.beta < 1), p.alpha, 0),
    ),
    "ELU": lambda p, x: (
        np.where(x > 0, x, p.alpha * np.expm1(np.minimum(x, 0))),
        np.where(x > 0, 1, p.alpha * np.exp(np.minimum(x, 0))),
    ),
    "softplus": lambda p, x: (np.logaddexp(x, 0), 1 / (1 + np.exp(-x))),
    "softsign": lambda p, x: (x / (1 + np.abs(x)), 1 / (1 + np.abs(x)) ** 2),
}


@layer("activation")
def activation(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    kind = p.WhichOneof("NonlinearityType")
    if kind not in _ACTIVATIONS:
        raise Unsupported(f"an activation layer of type {kind}")
    y, slope = _ACTIVATIONS[kind](getattr(p, kind), inputs[0])
    return y.astype(np.float32), lambda dy: ([(dy * slope).astype(np.float32)], {})


@layer("softmax")
def softmax(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    (x,) = inputs
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, lambda dy: ([y * (dy - (dy * y).sum(axis=1, keepdims=True))], {})


@layer("flatten")
def flatten(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    (x,) = inputs
    if p.mode:  # the channels last
        moved = x.transpose(0, 2, 3, 1)
        return moved.reshape(len(x), -1, 1, 1), lambda dy: (
            [dy.reshape(moved.shape).transpose(0, 3, 1, 2)],
            {},
        )
    return x.reshape(len(x), -1, 1, 1), lambda dy: ([dy.reshape(x.shape)], {})


@layer("add")
def add(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    if len(inputs) == 1:
        return inputs[0] + np.float32(p.alpha), lambda dy: ([dy], {})
    y = inputs[0]
    for x in inputs[1:]:
        y = y + x
    return y, lambda dy: ([_summed(dy, x.shape) for x in inputs], {})


@layer("multiply")
def multiply(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    if len(inputs) == 1:
        return inputs[0] * np.float32(p.alpha), lambda dy: ([dy * np.float32(p.alpha)], {})
    if len(inputs) != 2:
        raise Unsupported(f"a multiply layer of {len(inputs)} inputs")
    a, b = inputs
    return a * b, lambda dy: ([_summed(dy * b, a.shape), _summed(dy * a, b.shape)], {})


@layer("scale")
def scale(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    factor = w["scale"].reshape(_channel_shape(p.shapeScale))
    shift = w["bias"].reshape(_channel_shape(p.shapeBias)) if p.hasBias else np.float32(0)
    return inputs[0] * factor + shift, lambda dy: ([dy * factor], {})


@layer("batchnorm")
def batchnorm(p: Any, w: Weights, inputs: list[Array]) -> tuple[Array, Back]:
    if p.computeMeanVar or p.instanceNormalization:
        raise Unsupported("a batchnorm layer that computes its own mean and variance")
    factor = (w["gamma"] / np.sqrt(w["variance"] + np.float32(p.epsilon)))[None, :, None, None]
    y = (inputs[0] - w["mean"][None, :, None, None]) * factor + w["beta"][None, :, None, None]
    return y, lambda dy: ([dy * factor], {})


def _channel_shape(shape: Any) -> tuple[int, ...]:
    sizes = list(shape)
    if sizes == [1]:
        return (1, 1, 1, 1)
    return (1, *sizes) if len(sizes) == 3 else (1, sizes[0], 1, 1)


def _pair(values: Any) -> list[int]:
    return [int(v) for v in values] or [1, 1]


def _borders(p: Any, oneof: str, size: tuple[int, ...], reach: list[int], stride: list[int]) -> Pads:
    kind = p.WhichOneof(oneof)
    if kind == "valid":
        amounts = [(int(b.startEdgeSize), int(b.endEdgeSize)) for b in p.valid.paddingAmounts.borderAmounts]
        if len(amounts) not in (0, 2):
            raise MalformedFile(f"{len(amounts)} border amounts for height and width")
        return amounts or [(0, 0), (0, 0)]
    if kind == "same":
        totals = [max(0, (-(-n // s) - 1) * s + r - n) for n, r, s in zip(size, reach, stride, strict=True)]
        heavy = int(p.same.asymmetryMode)  # 0: bottom and right
        return [(t - t // 2, t // 2) if heavy else (t // 2, t - t // 2) for t in totals]
    raise Unsupported(f"padding {kind}")


def _unpadded(values: Array, shape: tuple[int, ...], pads: Pads) -> Array:
    """A gradient of a padded value's front part, as the gradient of what was padded."""
    whole = np.zeros(shape, np.float32)
    whole[:, :, : values.shape[2], : values.shape[3]] = values
    (top, _), (left, _) = pads
    height, width = (n - a - b for n, (a, b) in zip(shape[2:], pads, strict=True))
    return whole[:, :, top : top + height, left : left + width]


def _summed(dy: Array, shape: tuple[int, ...]) -> Array:
    axes = tuple(i for i, (n, m) in enumerate(zip(dy.shape, shape, strict=True)) if n != m)
    return np.asarray(dy.sum(axis=axes, keepdims=True) if axes else dy)
