# SPDX-License-Identifier: Apache-2.0
"""Blocks whose gradients TFLite's memory planner once spoiled, on every interpreter and its own kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Conv2d, Linear, Module, Parameter
from torch.nn.functional import gelu

import edgefl
from edgefl.converters.targets import TFLiteModel
from edgefl.graph import read_onnx, run

pytest.importorskip("tensorflow")

from tests.converters.conftest import KERNELS, Engine


class Pooled(Module):  # type: ignore[misc]
    """A sum over positions spread over them again, and a residual sum."""

    def __init__(self, d: int = 6) -> None:
        super().__init__()
        self.q, self.w = Linear(d, d), Parameter(torch.randn(d, 1))
        self.proj, self.final = Linear(d, d), Linear(d, d)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        q = self.q(t)
        g = ((q @ self.w) * q).sum(1, keepdim=True)
        return self.final(self.proj(g * t) + q).mean(1)


class Mixer(Module):  # type: ignore[misc]
    """Affine scales and shifts instead of normalisation, mixing over positions by a transpose."""

    def __init__(self, positions: int, d: int = 8) -> None:
        super().__init__()
        self.mix, self.f1, self.f2 = Linear(positions, positions), Linear(d, 16), Linear(16, d)
        self.l1, self.l2 = Parameter(torch.ones(d) / 2), Parameter(torch.ones(d) / 2)
        self.alpha, self.alpha2 = Parameter(torch.ones(1, 1, d)), Parameter(torch.ones(1, 1, d))
        self.beta, self.beta2 = Parameter(torch.zeros(1, 1, d)), Parameter(torch.zeros(1, 1, d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.l1 * self.mix((self.beta + self.alpha * x).transpose(1, 2)).transpose(1, 2)
        return x + self.l2 * self.f2(gelu(self.f1(self.beta2 + self.alpha2 * x)))


class Patches(Module):  # type: ignore[misc]
    """Two mixers over the patches of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = Conv2d(3, 8, 4, 4), Linear(8, 5)
        self.mixers = torch.nn.Sequential(Mixer(4), Mixer(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixers(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


MODELS = {"pooled": (Pooled, (2, 8, 6)), "patches": (Patches, (2, 3, 8, 8))}


@pytest.fixture(scope="module", params=MODELS)
def bundle(request: pytest.FixtureRequest) -> edgefl.Bundle:
    make, shape = MODELS[request.param]
    torch.manual_seed(0)
    return edgefl.convert(make(), np.zeros(shape, np.float32), batch_size=shape[0])


@pytest.mark.parametrize("kernels", KERNELS)
def test_gradients_are_numpys(bundle: edgefl.Bundle, engine: Engine, kernels: str) -> None:
    random = np.random.default_rng(0)
    feeds: dict[str, Any] = {**bundle.golden(), **bundle.parameters()}
    feeds["x"] = random.normal(size=feeds["x"].shape).astype(np.float32)

    found = engine(step(bundle), feeds, kernels)

    for name, wanted in run(read_onnx(bundle.artifact("onnx", "step")), feeds).items():
        assert np.linalg.norm(found[name] - wanted) <= 1e-4 * np.linalg.norm(wanted) + 1e-6, name


def step(bundle: edgefl.Bundle) -> TFLiteModel:
    """The bundle's step with the names its file has."""
    graph = read_onnx(bundle.artifact("onnx", "step"))
    artifact = next(a for a in bundle.manifest.artifacts if (a.target, a.kind) == ("tflite", "step"))
    inputs = {name: artifact.inputs.get(name, name) for name in graph.inputs}
    outputs = {name: artifact.outputs.get(name, name) for name in graph.outputs}
    return TFLiteModel(bundle.artifact("tflite", "step"), inputs, outputs, signature="step")
