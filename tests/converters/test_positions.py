# SPDX-License-Identifier: Apache-2.0
"""Positions counted in the graph, as RoBERTa and its kin do, on every target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgefl.bundle import Bundle
from edgefl.converters import convert
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize import normalize
from edgefl.graph import TensorType, run
from edgefl.runtime import Trainer
from tests.converters.source_oracle import close

LENGTH = 5


class Counting(nn.Module):
    """Padding, 1, has the position 1; the other tokens count from 2."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(9, 4), nn.Embedding(LENGTH + 2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, ids: Any) -> Any:
        mask = (ids != 1).int()
        places = (torch.cumsum(mask, 1).type_as(mask) * mask).long() + 1
        return self.head((self.tokens(ids) * self.places(places)).tanh().mean(1))


IDS = np.array([[3, 4, 5, 6, 2], [2, 7, 1, 1, 1], [8, 1, 3, 1, 0]])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Counting()


@pytest.fixture(scope="module")
def bundle(model: nn.Module) -> Bundle:
    return convert(model, IDS, batch_size=len(IDS), name="counting")


@pytest.mark.parametrize("backend", ["numpy", "onnx", "openvino", "tflite"])
def test_positions_are_the_same_on_every_engine(model: nn.Module, bundle: Bundle, backend: str) -> None:
    y = torch.tensor([0, 2, 1])
    model.zero_grad()
    nn.functional.cross_entropy(model(torch.from_numpy(IDS)), y).backward()

    _, gradients = Trainer(bundle, backend=backend).loss_and_gradients(IDS, y.numpy())

    for name, parameter in model.named_parameters():
        close(gradients[name], parameter.grad)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("shape", [(2, 1, 3), (2, 2, 3), (1, 7, 2), (3, 8, 1)])
def test_sums_of_integers_are_exact(shape: tuple[int, ...], reverse: int, exclusive: int, dtype: str) -> None:
    values = np.random.default_rng(0).integers(-(2**26), 2**26, shape).astype(dtype)  # beyond float32
    b = GraphBuilder()
    x = b.input("x", TensorType.of(values))
    b.output("y", b.add("CumSum", x, b.constant(np.array(1)), reverse=reverse, exclusive=exclusive))
    plain = b.build("sums")

    rewritten = normalize(plain)

    assert not {"CumSum", "MatMul"} & set(rewritten.operators())
    np.testing.assert_array_equal(run(rewritten, {"x": values})["y"], run(plain, {"x": values})["y"])
