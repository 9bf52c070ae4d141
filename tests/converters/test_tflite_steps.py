# SPDX-License-Identifier: Apache-2.0
"""Whole training steps as TFLite against the NumPy interpreter, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgefl.converters import convert
from edgefl.converters.targets.tflite import TFLiteModel, safe_names
from edgefl.graph import Graph, read_onnx, run

pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
nn = torch.nn
functional = nn.functional

BATCH = 4


class Separable(nn.Module):  # type: ignore[misc, name-defined]
    """Strided, depthwise, pointwise and grouped convolutions with frozen normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.depth, self.point = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 16, 1)
        self.grouped, self.head = nn.Conv2d(16, 16, 3, 2, 1, groups=4), nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = functional.hardswish(self.norm(self.stem(x)))
        x = functional.relu6(self.grouped(torch.relu(self.point(self.depth(x)))))
        return self.head(x.mean((2, 3)))


class Series(nn.Module):  # type: ignore[misc, name-defined]
    """1-D convolutions and pools."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(6, 8, 5, padding=2), nn.Conv1d(8, 12, 3, stride=2)
        self.head = nn.Linear(12, 7)

    def forward(self, x: Any) -> Any:
        x = functional.max_pool1d(torch.relu(self.first(x)), 2)
        return self.head(torch.relu(self.second(x)).mean(2))


class Up(nn.Module):  # type: ignore[misc, name-defined]
    """A transposed and a dilated convolution, and padding that is not symmetric."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 8, 3, 2, 1), nn.ConvTranspose2d(8, 4, 3, 2, 1, 1)
        self.wide, self.head = nn.Conv2d(4, 3, 3, padding=2, dilation=2), nn.Linear(243, 4)

    def forward(self, x: Any) -> Any:
        x = functional.pad(torch.tanh(self.up(torch.relu(self.down(x)))), (1, 0, 0, 1))
        return self.head(self.wide(x).flatten(1))


class Attention(nn.Module):  # type: ignore[misc, name-defined]
    """One causal transformer block over embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(20, 16), nn.Parameter(torch.randn(6, 16) * 0.1)
        self.before, self.mix, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.middle, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, ids: Any) -> Any:
        x = self.table(ids) + self.places
        q, k, v = self.mix(self.before(x)).reshape(-1, 6, 3, 4, 4).permute(2, 0, 3, 1, 4)
        mask = torch.triu(torch.full((6, 6), -1e9), 1)
        found = torch.softmax(q @ k.transpose(-1, -2) / 2 + mask, -1) @ v
        x = x + self.out(found.transpose(1, 2).reshape(-1, 6, 16))
        x = x + self.narrow(functional.gelu(self.wide(self.middle(x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.cell(x)[0][:, -1])


def dense() -> Any:
    return nn.Sequential(nn.Linear(10, 16), nn.GELU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))


def image() -> Any:
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1)),
        *(nn.BatchNorm2d(8), nn.ELU(), nn.AvgPool2d(3, 2, 1), nn.Flatten(), nn.Linear(72, 10)),
    )


MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "dense": (dense, np.zeros((1, 10), np.float32)),
    "image": (image, np.zeros((1, 1, 12, 12), np.float32)),
    "separable": (Separable, np.zeros((1, 3, 16, 16), np.float32)),
    "series": (Series, np.zeros((1, 6, 40), np.float32)),
    "up": (Up, np.zeros((1, 1, 8, 8), np.float32)),
    "attention": (Attention, np.zeros((1, 6), np.int64)),
    "recurrent": (Recurrent, np.zeros((1, 5, 4), np.float32)),
}


@dataclass(frozen=True)
class Step:
    """A step graph, the same as TFLite, and feeds for both."""

    graph: Graph
    lite: TFLiteModel
    feeds: dict[str, Any]


@pytest.fixture(scope="module", params=MODELS)
def step(request: pytest.FixtureRequest) -> Step:
    torch.manual_seed(0)
    make, example = MODELS[request.param]
    bundle = convert(make().eval(), example, batch_size=BATCH, name=request.param)
    graph = read_onnx(bundle.artifact("onnx", "step"))
    known = {**bundle.golden(), **bundle.parameters()}
    names = safe_names(graph.inputs), safe_names(graph.outputs)
    lite = TFLiteModel(bundle.artifact("tflite", "step"), *names, signature="step")
    return Step(graph, lite, {name: known[name] for name in graph.inputs})


def test_loss_and_gradients_agree(step: Step, litert: Any, tflite_runtime: Any) -> None:
    expected = run(step.graph, step.feeds)

    for engine in (litert, tflite_runtime):
        found = engine(step.lite, step.feeds)
        for name, value in expected.items():
            assert np.linalg.norm(found[name] - value) <= 2e-5 * max(np.linalg.norm(value), 1e-3), name


def test_twenty_steps_end_in_the_same_weights(step: Step, litert: Any) -> None:
    names = [name.removeprefix("grad/") for name in step.graph.outputs if name.startswith("grad/")]
    ends = []
    for engine in (lambda feeds: run(step.graph, feeds), lambda feeds: litert(step.lite, feeds)):
        feeds = dict(step.feeds)
        for _ in range(20):
            results = engine(feeds)
            feeds.update({n: (feeds[n] - 0.05 * results[f"grad/{n}"]).astype(np.float32) for n in names})
        ends.append(np.concatenate([feeds[n].ravel() for n in names]))

    assert np.linalg.norm(ends[1] - ends[0]) <= 1e-4 * np.linalg.norm(ends[0])
