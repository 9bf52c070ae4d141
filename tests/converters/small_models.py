# SPDX-License-Identifier: Apache-2.0
"""Small models written twice: as a Forward built by hand, and as a torch function of the same parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.sources.forward import Forward
from edgefl.graph.model import TensorType

F = torch.nn.functional
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A model and its reference.

    Attributes:
        forward: what edgefl converts.
        reference: `(parameters, x) -> output` in torch.
    """

    forward: Forward
    reference: Callable[[Tensors, torch.Tensor], torch.Tensor]


def build(
    x: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    emit: Callable[[Mapping[str, Expr], Expr], Expr],
    reference: Callable[[Tensors, torch.Tensor], torch.Tensor],
    buffers: frozenset[str] = frozenset(),
) -> Model:
    random = np.random.default_rng(3)
    values = {
        name: (random.standard_normal(s) / np.sqrt(max(np.prod(s[1:]), 1))).astype(np.float32)
        for name, s in shapes.items()
    }
    b = GraphBuilder()
    data = Expr(b, b.input("x", TensorType(np.dtype(np.float32), x)))
    named = {name: Expr(b, b.input(name, TensorType.of(value))) for name, value in values.items()}
    b.output("output", emit(named, data).name)
    trainable = frozenset(shapes) - buffers
    return Model(Forward(b.build(), ("x",), ("output",), values, trainable, buffers), reference)


def mlp(batch: int = 8, last: str = "") -> Model:
    shapes = {
        "a.weight": (16, 6),
        "a.bias": (16,),
        "b.weight": (12, 16),
        "b.bias": (12,),
        "c.weight": (4, 12),
        "c.bias": (4,),
    }

    def emit(p, x):
        for layer in "abc":
            x = x @ p[f"{layer}.weight"].transpose(1, 0) + p[f"{layer}.bias"]
            x = {"a": x.apply("Tanh"), "b": x.apply("Relu"), "c": x.apply(last) if last else x}[layer]
        return x

    def reference(p, x):
        x = torch.tanh(F.linear(x, p["a.weight"], p["a.bias"]))
        return F.linear(torch.relu(F.linear(x, p["b.weight"], p["b.bias"])), p["c.weight"], p["c.bias"])

    return build((batch, 6), shapes, emit, reference)


def per_channel(vector: Expr) -> Expr:
    return vector.reshape((1, -1, 1, 1))


def cnn_2d(batch: int = 4) -> Model:
    """Strided, depthwise and grouped convolutions, frozen statistics, both pools, and a dense head."""
    shapes = {
        "stem.weight": (8, 3, 3, 3), "norm.mean": (8,), "norm.gamma": (8,), "norm.beta": (8,),
        "deep.weight": (8, 1, 3, 3), "point.weight": (12, 8, 1, 1), "point.bias": (12,),
        "group.weight": (12, 6, 3, 3), "head.weight": (5, 12), "head.bias": (5,),
    }  # fmt: skip
    pooled = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}

    def emit(p, x):
        x = x.apply("Conv", p["stem.weight"], kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
        x = (x - per_channel(p["norm.mean"])) * per_channel(p["norm.gamma"]) + per_channel(p["norm.beta"])
        x = x.apply("Clip", x.constant(0.0), x.constant(6.0)).apply("MaxPool", **pooled)
        x = x.apply("Conv", p["deep.weight"], kernel_shape=(3, 3), pads=(1, 1, 1, 1), group=8)
        x = (x.apply("Conv", p["point.weight"], kernel_shape=(1, 1)) + per_channel(p["point.bias"])).apply(
            "Relu"
        )
        x = x.apply("AveragePool", kernel_shape=(2, 2), strides=(1, 1))
        x = x + x.apply(
            "Conv", p["group.weight"], kernel_shape=(3, 3), dilations=(2, 2), pads=(2, 2, 2, 2), group=2
        )
        x = (x * x.sigmoid()).sum([2, 3]) / float(x.shape[2] * x.shape[3])
        return x @ p["head.weight"].transpose(1, 0) + p["head.bias"]

    def reference(p, x):
        x = F.conv2d(x, p["stem.weight"], stride=2, padding=1)
        x = (x - p["norm.mean"].view(-1, 1, 1)) * p["norm.gamma"].view(-1, 1, 1) + p["norm.beta"].view(
            -1, 1, 1
        )
        x = F.max_pool2d(F.relu6(x), 3, 2, 1)
        x = F.conv2d(x, p["deep.weight"], padding=1, groups=8)
        x = F.avg_pool2d(torch.relu(F.conv2d(x, p["point.weight"], p["point.bias"])), 2, 1)
        x = x + F.conv2d(x, p["group.weight"], padding=2, dilation=2, groups=2)
        return F.linear(F.silu(x).mean((2, 3)), p["head.weight"], p["head.bias"])

    return build((batch, 3, 18, 14), shapes, emit, reference, frozenset({"norm.mean"}))


def cnn_1d(batch: int = 4) -> Model:
    """A network over time, written with two-dimensional operators of height 1."""
    shapes = {
        "a.weight": (8, 6, 5),
        "a.bias": (8,),
        "b.weight": (16, 8, 3),
        "b.bias": (16,),
        "head.weight": (7, 16),
        "head.bias": (7,),
    }

    def emit(p, x):
        x = x.reshape((batch, 6, 1, 40))
        for layer, kernel, stride in (("a", 5, 1), ("b", 3, 2)):
            w = p[f"{layer}.weight"]
            w = w.reshape((*w.shape[:2], 1, kernel))
            x = x.apply("Conv", w, kernel_shape=(1, kernel), strides=(1, stride), pads=(0, 1, 0, 1))
            x = (x + per_channel(p[f"{layer}.bias"])).apply("Relu")
            x = x.apply("MaxPool", kernel_shape=(1, 2), strides=(1, 2))
        x = x.apply("ReduceMean", x.constant(np.array([2, 3]), np.int64), keepdims=0)
        return x @ p["head.weight"].transpose(1, 0) + p["head.bias"]

    def reference(p, x):
        x = F.max_pool1d(torch.relu(F.conv1d(x, p["a.weight"], p["a.bias"], padding=1)), 2)
        x = F.max_pool1d(torch.relu(F.conv1d(x, p["b.weight"], p["b.bias"], stride=2, padding=1)), 2)
        return F.linear(x.mean(2), p["head.weight"], p["head.bias"])

    return build((batch, 6, 40), shapes, emit, reference)
