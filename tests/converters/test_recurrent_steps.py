# SPDX-License-Identifier: Apache-2.0
"""What each time step of an unrolled recurrence costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgefl
from edgefl.graph import Graph, read_onnx


class Last(nn.Module):
    """A recurrent layer and a classifier of its last output."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.layer(x)[0][:, -1])


def step(kind: str, steps: int) -> Graph:
    torch.manual_seed(0)
    model = Last(getattr(nn, kind)(4, 8, batch_first=True))
    example = np.zeros((1, steps, 4), np.float32)
    bundle = edgefl.convert(model, example, batch_size=2, targets=("onnx",), prove=False)
    return read_onnx(bundle.artifact("onnx", "step"))


@pytest.mark.parametrize(("kind", "most"), [("GRU", 33), ("LSTM", 36)])
def test_a_step_more_is_so_many_operators_more(kind: str, most: int) -> None:
    """Conversion takes as long as there are operators; they grow with the steps, and no faster."""
    seven, eight, nine = (len(step(kind, steps).nodes) for steps in (7, 8, 9))

    assert nine - eight == eight - seven
    assert eight - seven <= most
