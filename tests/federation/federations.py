# SPDX-License-Identifier: Apache-2.0
"""Small models of every kind, each with examples, and the devices that have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.simulation import divide

FIXTURES = Path(__file__).parents[1] / "fixtures"
BATCH, CLASSES, EXAMPLES, DEVICES = 6, 4, 50, 3
Made = tuple[Bundle, Examples]


def _images(count: int = EXAMPLES) -> Examples:
    random = np.random.default_rng(1)
    y = random.integers(0, CLASSES, count).astype(np.int32)
    x = random.normal(size=(count, 3, 6, 6)) + y[:, None, None, None] / 2
    return Examples(x.astype(np.float32), y)


def _converted(model: Any, examples: Examples, **options: Any) -> Made:
    import edgefl

    example = {n: v[:1] for n, v in examples.x.items()} if isinstance(examples.x, dict) else examples.x[:1]
    options = {"batch_size": BATCH, "targets": ("onnx",), **options}
    return edgefl.convert(model.eval(), example, **options), examples


def _dense() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(108, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, CLASSES)
    )


def _normalised() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES)
    )


def _dropping() -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 16), nn.Tanh(), nn.Dropout(0.4), nn.Linear(16, CLASSES))


def _several() -> Made:
    import torch
    from torch import nn

    class WideAndDeep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.body = nn.Embedding(7, 4), nn.Linear(17, 8)
            self.kind, self.price = nn.Linear(8, CLASSES), nn.Linear(8, 1)

        def forward(self, wide, deep):
            h = torch.tanh(self.body(torch.cat([wide, self.table(deep).flatten(1)], 1)))
            return {"kind": self.kind(h), "price": self.price(h)}

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    x = {
        "wide": random.normal(size=(EXAMPLES, 5)).astype(np.float32),
        "deep": random.integers(0, 7, (EXAMPLES, 3)).astype(np.int32),
    }
    y = {
        "kind": random.integers(0, CLASSES, EXAMPLES).astype(np.int32),
        "price": random.normal(size=(EXAMPLES, 1)).astype(np.float32),
    }
    losses = {"kind": "softmax_cross_entropy", "price": ("mean_squared_error", 0.3)}
    return _converted(WideAndDeep(), Examples(x, y), loss=losses)


def _kept(name: str) -> Made:
    from tests.fixtures.make import examples

    return Bundle.open(FIXTURES / f"{name}.edgefl"), Examples(*examples(EXAMPLES))


CONVERTED: dict[str, Callable[[], Made]] = {
    "lora": lambda: _converted(_dense(), _images(), trainable="lora:rank=2"),
    "frozen bits": lambda: _converted(_dense(), _images(), trainable="lora:rank=2", frozen_bits=8),
    "last": lambda: _converted(_dense(), _images(), trainable="last:1"),
    "personal": lambda: _converted(_dense(), _images(), personal="5.*"),
    "batchnorm frozen": lambda: _converted(_normalised(), _images(), batch_norm="frozen"),
    "batchnorm batch": lambda: _converted(_normalised(), _images(), batch_norm="batch"),
    "batchnorm group": lambda: _converted(_normalised(), _images(), batch_norm="group"),
    "dropout": lambda: _converted(_dropping(), _images(), dropout=True),
    "several": _several,
}
MODELS = {"mlp": lambda: _kept("mlp"), "head": lambda: _kept("head"), **CONVERTED}


@cache
def model(name: str) -> Made:
    """A bundle, and examples for it."""
    return MODELS[name]()


def devices(examples: Examples, weighted: bool) -> dict[str, Examples]:
    """The examples among devices with unlike numbers of them."""
    if weighted:
        weight = np.random.default_rng(5).choice([0.0, 0.5, 1.0, 3.0], len(examples)).astype(np.float32)
        examples = Examples(examples.x, examples.y, weight)
    return divide(examples, DEVICES, "dirichlet:2", seed=4)
