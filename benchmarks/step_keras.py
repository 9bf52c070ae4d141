# SPDX-License-Identifier: Apache-2.0
"""The networks of `step_models` in Keras, channels last, with the same weights.

A network is a function of a `Loader`, which calls a layer and gives it the next weights of
the PyTorch module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.step_shapes import MOBILENET, Array, rotary

Tensor = Any


class Loader:
    """Layers called in the order in which the PyTorch module declares its own."""

    def __init__(self, weights: Iterable[Array]) -> None:
        self._weights = iter(weights)

    def __call__(self, layer: Any, *inputs: Tensor, **options: Any) -> Tensor:
        made = layer(*inputs, **options)
        taken = [
            next(self._weights) for _ in range(4 if isinstance(layer, layers.GRU) else len(layer.weights))
        ]
        layer.set_weights(_turned(layer, taken))
        return made


def _turned(layer: Any, weights: list[Array]) -> list[Array]:
    """PyTorch's weights of a layer in Keras's layout."""
    if isinstance(layer, layers.GRU):
        kernel, recurrent, *biases = (_gates(w) for w in weights)
        return [kernel.T, recurrent.T, np.stack(biases)]
    if isinstance(layer, layers.DepthwiseConv2D):
        return [w.transpose(2, 3, 0, 1) if w.ndim == 4 else w for w in weights]
    if isinstance(layer, layers.Conv2D):
        return [w.transpose(2, 3, 1, 0) if w.ndim == 4 else w for w in weights]
    if isinstance(layer, Lora):
        base, a, b = (w.T for w in weights)
        return [a, b, base]
    if isinstance(layer, layers.Dense):
        return [w.T for w in weights]
    return weights


def _gates(weight: Array) -> Array:
    """Reset, update, new to Keras's update, reset, new."""
    reset, update, new = np.split(weight, 3)
    return np.concatenate([update, reset, new])


def conv(
    w: Loader, x: Tensor, made: int, kernel: int | tuple[int, int], stride: int = 1, bias: bool = False
) -> Tensor:
    """A convolution padded as in PyTorch: equally on both sides."""
    sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
    same = stride == 1 and all(k % 2 for k in sizes)
    x = x if same else _padded(x, sizes)
    return w(layers.Conv2D(made, sizes, stride, "same" if same else "valid", use_bias=bias), x)


def conv_bn(w: Loader, x: Tensor, made: int, kernel: int | tuple[int, int], stride: int = 1) -> Tensor:
    return _norm(w, conv(w, x, made, kernel, stride))


def depthwise_bn(w: Loader, x: Tensor, stride: int = 1) -> Tensor:
    x = x if stride == 1 else _padded(x, (3, 3))
    padding = "same" if stride == 1 else "valid"
    return _norm(w, w(layers.DepthwiseConv2D(3, stride, padding, use_bias=False), x))


def _padded(x: Tensor, sizes: tuple[int, int]) -> Tensor:
    return layers.ZeroPadding2D(tuple(k // 2 for k in sizes))(x) if max(sizes) > 1 else x


def _norm(w: Loader, x: Tensor) -> Tensor:
    return w(FrozenNorm(epsilon=1e-5), x)


class FrozenNorm(layers.BatchNormalization):  # type: ignore[misc]
    """BatchNorm by its moving statistics, in training too; scale and shift are trained."""

    def call(self, x: Tensor) -> Tensor:
        return super().call(x, training=False)


def cnn(w: Loader) -> keras.Model:
    x = given = keras.Input((28, 28, 1))
    for made in (16, 32, 64):
        x = layers.MaxPooling2D(2)(ops.relu(conv(w, x, made, 3, bias=True)))
    # PyTorch flattens channels first.
    x = layers.Flatten()(layers.Permute((3, 1, 2))(x))
    x = w(layers.Dense(140, activation="relu"), x)
    return keras.Model(given, w(layers.Dense(10), x))


def resnet8(w: Loader) -> keras.Model:
    given = keras.Input((32, 32, 3))
    x = ops.relu(conv_bn(w, given, 16, 3))
    for made, stride in ((16, 1), (32, 2), (64, 2)):
        inner = conv_bn(w, ops.relu(conv_bn(w, x, made, 3, stride)), made, 3)
        x = ops.relu(inner + (conv(w, x, made, 1, stride) if stride > 1 else x))
    return keras.Model(given, w(layers.Dense(10), layers.GlobalAveragePooling2D()(x)))


def mobilenetv2(w: Loader) -> keras.Model:
    given = keras.Input((96, 96, 3))
    x = ops.relu6(conv_bn(w, given, 16, 3, 2))
    for factor, made, count, first in MOBILENET:
        for i in range(count):
            x = _inverted(w, x, made, first if i == 0 else 1, factor)
    x = ops.relu6(conv_bn(w, x, 1280, 1))
    return keras.Model(given, w(layers.Dense(10), layers.GlobalAveragePooling2D()(x)))


def _inverted(w: Loader, x: Tensor, made: int, stride: int, factor: int) -> Tensor:
    inner = ops.relu6(conv_bn(w, x, x.shape[-1] * factor, 1)) if factor > 1 else x
    out = conv_bn(w, ops.relu6(depthwise_bn(w, inner, stride)), made, 1)
    return x + out if stride == 1 and x.shape[-1] == made else out


def dscnn(w: Loader) -> keras.Model:
    given = keras.Input((49, 10, 1))
    x = ops.relu(conv_bn(w, given, 64, (10, 4), 2))
    for _ in range(4):
        x = ops.relu(conv_bn(w, ops.relu(depthwise_bn(w, x)), 64, 1))
    return keras.Model(given, w(layers.Dense(12), layers.GlobalAveragePooling2D()(x)))


class Attention(layers.Layer):  # type: ignore[misc]
    """Attention of `[B, T, C]` tensors by Keras's fused operation."""

    def __init__(self, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal

    def call(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        _, steps, width = q.shape
        parts = [ops.reshape(t, (-1, steps, self.heads, width // self.heads)) for t in (q, k, v)]
        return ops.reshape(ops.dot_product_attention(*parts, is_causal=self.causal), (-1, steps, width))


class Positions(layers.Layer):  # type: ignore[misc]
    """Learned positions added to `[B, T, C]`."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=shape[1:])

    def call(self, x: Tensor) -> Tensor:
        return x + self.table


def bert(w: Loader) -> keras.Model:
    given = keras.Input((64,), dtype="int32")
    x = w(Positions(), w(layers.Embedding(30522, 128), given))
    x = w(layers.LayerNormalization(epsilon=1e-6), x)
    for _ in range(2):
        q, k, v = (w(layers.Dense(128), x) for _ in range(3))
        x = x + w(layers.Dense(128), Attention(2, False)(q, k, v))
        x = w(layers.LayerNormalization(epsilon=1e-6), x)
        inner = keras.activations.gelu(w(layers.Dense(512), x), approximate=False)
        x = w(layers.LayerNormalization(epsilon=1e-6), x + w(layers.Dense(128), inner))
    return keras.Model(given, w(layers.Dense(2), w(layers.Dense(128, activation="tanh"), x[:, 0])))


def gru(w: Loader) -> keras.Model:
    given = keras.Input((32,), dtype="int32")
    x = w(layers.GRU(128, return_sequences=True), w(layers.Embedding(1000, 64), given))
    return keras.Model(given, w(layers.Dense(1000), x))


class Lora(layers.Layer):  # type: ignore[misc]
    """A frozen product with a trained update of rank 8, scaled by 2."""

    def __init__(self, made: int) -> None:
        super().__init__()
        self.made = made

    def build(self, shape: Any) -> None:
        self.base = self.add_weight(shape=(shape[-1], self.made), trainable=False)
        self.a = self.add_weight(shape=(shape[-1], 8))
        self.b = self.add_weight(shape=(8, self.made))

    def call(self, x: Tensor) -> Tensor:
        return x @ self.base + ((x @ self.a) @ self.b) * 2.0


class Scale(layers.Layer):  # type: ignore[misc]
    """Llama's RMSNorm, frozen."""

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=shape[-1:], trainable=False)

    def call(self, x: Tensor) -> Tensor:
        return x * ops.rsqrt(ops.mean(ops.square(x), -1, keepdims=True) + 1e-6) * self.weight


class Rotated(layers.Layer):  # type: ignore[misc]
    """Rotary positions on `[B, T, C]`."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def call(self, x: Tensor) -> Tensor:
        _, steps, width = x.shape
        parts = ops.reshape(x, (-1, steps, self.heads, width // self.heads))
        cos, sin = rotary(steps, width // self.heads)
        left, right = ops.split(parts, 2, -1)
        turned = parts * cos + ops.concatenate([-right, left], -1) * sin
        return ops.reshape(turned, (-1, steps, width))


def llama(w: Loader) -> keras.Model:
    given = keras.Input((64,), dtype="int32")
    x = w(layers.Embedding(1000, 128, trainable=False), given)
    for _ in range(2):
        h = w(Scale(), x)
        q, k, v = (w(Lora(128), h) for _ in range(3))
        x = x + w(Lora(128), Attention(4, True)(Rotated(4)(q), Rotated(4)(k), v))
        h = w(Scale(), x)
        x = x + w(Lora(128), ops.silu(w(Lora(344), h)) * w(Lora(344), h))
    return keras.Model(given, w(layers.Dense(1000, use_bias=False, trainable=False), w(Scale(), x)))


NETWORKS: dict[str, Callable[[Loader], keras.Model]] = {
    f.__name__: f for f in (cnn, resnet8, mobilenetv2, dscnn, bert, gru, llama)
}


def network(name: str, weights: Iterable[Array]) -> keras.Model:
    """A network with the weights of the PyTorch module."""
    return NETWORKS[name](Loader(weights))
