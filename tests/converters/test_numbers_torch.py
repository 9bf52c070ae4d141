# SPDX-License-Identifier: Apache-2.0
"""A tensor that a PyTorch model reads as one of Python's numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import edgefl


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body(x)
        return self.head(hidden * hidden.max().item())


def test_no_gradient_passes_through_a_number() -> None:
    torch.manual_seed(0)
    model, rng = Scaled(), np.random.default_rng(0)
    x, y = rng.standard_normal((4, 4)).astype(np.float32), np.array([0, 1, 2, 0])
    bundle = edgefl.convert(model, x[:1], batch_size=4, targets=("onnx",), prove=False)

    _, made = edgefl.Trainer(bundle, backend="numpy").loss_and_gradients(x, y)

    nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    for name, tensor in model.named_parameters():
        assert tensor.grad is not None
        np.testing.assert_allclose(made[name], tensor.grad.numpy(), rtol=1e-4, atol=1e-6)
