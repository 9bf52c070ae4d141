# SPDX-License-Identifier: Apache-2.0
"""PyTorch's attention over any number of axes, against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from edgefl.converters import convert
from edgefl.runtime import Trainer
from tests.converters.source_oracle import close

MASKS = {
    "none": None,
    "matrix": torch.ones(5, 5).tril().bool(),
    "added": torch.linspace(-2, 2, 50).reshape(2, 5, 5),  # by head
}


class Attention(nn.Module):
    """Over windows of five positions; `axes` in all, of which the last two are positions and features."""

    def __init__(self, axes: int, mask: str, how: dict[str, Any]) -> None:
        super().__init__()
        self.axes, self.mask, self.how = axes, mask, how
        self.project, self.head = nn.Linear(6, 18), nn.Linear(3, 4)

    def forward(self, x: Any) -> Any:
        q, k, v = self.project(x).unflatten(-1, (3, 2, 3)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        if self.axes == 3:
            q, k, v = (t.flatten(0, 2) for t in (q, k, v))
        elif self.axes == 6:
            q, k, v = (t.unsqueeze(2) for t in (q, k[:, :1], v))  # keys shared by the windows
        made = scaled_dot_product_attention(q, k, v, attn_mask=MASKS[self.mask], **self.how)
        return self.head(made.reshape(len(x), -1, 3).mean(1))


@pytest.mark.parametrize(
    ("axes", "mask", "how"),
    [
        (3, "none", {}),
        (5, "none", {"scale": 0.3}),
        (5, "none", {"is_causal": True}),
        (5, "matrix", {}),
        (5, "added", {}),
        (6, "added", {}),
    ],
)
def test_attention_of_any_rank_trains(axes: int, mask: str, how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = Attention(axes, mask, how)
    x, y = torch.randn(2, 4, 5, 6), torch.tensor([3, 1])
    cross_entropy(model(x), y).backward()

    bundle = convert(model, x.numpy(), batch_size=2, targets=("onnx",))

    trainer = Trainer(bundle, backend="numpy")
    close(trainer.predict(x.numpy()), model(x).detach())
    _, gradients = trainer.loss_and_gradients(x.numpy(), y.numpy())
    for name, parameter in model.named_parameters():
        close(gradients[name], parameter.grad)
