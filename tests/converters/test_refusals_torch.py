# SPDX-License-Identifier: Apache-2.0
"""PyTorch models that cannot become a step: each refusal names the layer and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import edgefl
from edgefl.converters.normalize import normalize
from edgefl.converters.sources import load_forward
from edgefl.graph import read_onnx
from tests.converters.refusals import refused

X = np.zeros((1, 6), np.float32)
Function = Callable[[Any], Any]


class Odd(nn.Module):
    """A layer around a function."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.weight, self.function = nn.Parameter(torch.eye(6)), function

    def forward(self, x: Any) -> Any:
        return self.function(x @ self.weight)


class Block(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.attn, self.norm = Odd(function), nn.LayerNorm(6)

    def forward(self, x: Any) -> Any:
        return self.norm(self.attn(x))


def model(function: Function) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), Block(function), nn.Linear(6, 3))


LAYER = "layer 1.attn (Odd)"


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * 2


def until_large(x: Any) -> Any:
    while x.sum() < 10:
        x = x + 1
    return x


def rare(x: Any) -> Any:
    return F.embedding(torch.zeros(4, dtype=torch.int64), x, scale_grad_by_freq=True)


CASES = {
    "matrix": (lambda x: torch.linalg.svd(x, full_matrices=False)[1] + x, "Newton-Schulz"),
    "fourier": (lambda x: torch.fft.fft(x).real, "matrices of cosines and sines"),
    "special": (torch.lgamma, "as a polynomial"),
    "median": (lambda x: x - x.median(-1, keepdim=True)[0], "place of a sort"),
    "nonzero": (lambda x: x + x[x > 0].sum(), "multiply by a mask"),
    "branch": (lambda x: x if x.sum() > 0 else -x, "Choose by torch.where"),
    "number": (lambda x: x * float(x.sum()) if x.sum().item() else x, "Choose by torch.where"),
    "loop": (until_large, "loop a fixed number of times"),
    "numpy": (lambda x: torch.from_numpy(x.numpy() * 2), "operations of PyTorch alone"),
    "shapes": (lambda x: x @ torch.ones(4, 4), "on the example inputs"),
    "noise": (lambda x: x + torch.randn_like(x), "as an input of the model"),
    "drawn": (lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)), "as an input of the model"),
    "gradient": (Doubled.apply, "write it with differentiable operations"),
    "frequency": (rare, "leave it out"),
    "volume": (
        lambda x: F.conv3d(x[None, None, None], torch.ones(1, 1, 1, 1, 1))[0, 0, 0],
        "sum of 2-D ones",
    ),
    "product": (lambda x: x.scatter_reduce(0, torch.zeros(2, 6).long(), x, "prod"), "freeze them"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_names_the_layer_and_says_what_to_do(case: str) -> None:
    function, todo = CASES[case]
    made = model(function)

    refused(lambda: edgefl.convert(made, X, batch_size=2, targets=["onnx"], prove=False), LAYER, todo)


def test_a_model_that_is_the_layer_itself_is_named_by_its_class() -> None:
    made = Odd(lambda x: x if x.sum() > 0 else -x)

    refused(lambda: load_forward(made, X, batch_size=2), "cannot export Odd: what", "torch.where")


def test_a_layer_that_recovers_from_an_error_is_not_blamed_for_the_next() -> None:
    def failing(x: Any) -> Any:
        raise ValueError("no")

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Odd(failing), nn.Linear(5, 3)

        def forward(self, x: Any) -> Any:
            try:
                return self.first(x)
            except ValueError:
                return self.second(x)

    made = nn.Sequential(Careful())
    refused(lambda: load_forward(made, X, batch_size=2), "layer 0.second (Linear) of Sequential", "example")


def test_what_tflite_lacks_is_named_by_layer() -> None:
    made = model(lambda x: x.round(decimals=0) + torch.special.erf(x).double().float())

    refused(lambda: edgefl.convert(made, X, batch_size=2, targets=["tflite"], prove=False), LAYER, "rewrite")


def test_files_do_not_carry_the_layers_of_their_nodes() -> None:
    made = model(torch.tanh)
    forward = normalize(load_forward(made, X, batch_size=2).graph)
    bundle = edgefl.convert(made, X, batch_size=2, targets=["onnx"], prove=False)

    assert "1.attn (Odd)" in {node.layer for node in forward}
    assert not any(node.layer for node in read_onnx(bundle.artifact("onnx", "step")))
