# SPDX-License-Identifier: Apache-2.0
"""PyTorch's attention over any number of axes, against PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from edgefl.converters import convert
from edgefl.errors import SourceError
from edgefl.graph import read_onnx, run
from edgefl.runtime import Trainer
from tests.converters.source_oracle import close
from tests.converters.test_training_modes import drawn
from tests.models.double import in_double

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


class Grouped(nn.Module):
    """Four heads of queries and two of keys and values, behind axes that count up to `axes` in all."""

    def __init__(self, axes: int, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        self.axes, self.how = axes, {"dropout_p": dropout, "is_causal": causal, "enable_gqa": True}
        self.queries, self.shared, self.head = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(3, 4)

    def forward(self, x: Any) -> Any:  # [batch, windows, positions, features]
        q = self.queries(x).unflatten(-1, (4, 3)).transpose(-2, -3)
        k, v = self.shared(x).unflatten(-1, (2, 2, 3)).movedim(-4, -2).unbind(-4)
        if self.axes == 3:
            q, k, v = (t[0, 0] for t in (q, k, v))
        elif self.axes == 6:
            q, k, v = (t.unflatten(1, (2, -1)) for t in (q, k, v))
        how = {**self.how, "dropout_p": self.how["dropout_p"] * self.training}
        made = scaled_dot_product_attention(q, k, v, **how)
        return self.head(made.reshape(len(x) if self.axes > 3 else 1, -1, 3).mean(1))


@pytest.mark.parametrize(("axes", "causal"), [(3, False), (4, False), (5, False), (5, True), (6, False)])
def test_heads_that_share_keys_train_at_any_rank(axes: int, causal: bool) -> None:
    torch.manual_seed(0)
    batch = 1 if axes == 3 else 2
    model = Grouped(axes, causal=causal).eval()
    x, y = torch.randn(batch, 4, 5, 6), torch.tensor([3, 1])[:batch]
    bundle = convert(model, x.numpy(), batch_size=batch, targets=("onnx",), prove=False)

    graph = in_double(read_onnx(bundle.artifact("onnx", "step")))
    values = {n: p.detach().double().numpy() for n, p in model.named_parameters()}
    feeds = {"x": x.double().numpy(), "y": y.int().numpy(), "weight": np.ones(batch), **values}
    made = run(graph, feeds)

    loss = cross_entropy(model.double()(x.double()), y)
    loss.backward()
    assert made["loss"] == pytest.approx(loss.item(), rel=1e-6)  # 1 / sqrt(3) is a float32 in the graph
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(made[f"grad/{name}"], parameter.grad, rtol=1e-5, atol=1e-7, err_msg=name)


def test_dropout_in_attention_of_five_axes_has_torch_s_gradient_with_the_same_mask() -> None:
    torch.manual_seed(0)
    model = Grouped(5, dropout=0.4)
    x, y, weight = torch.randn(2, 4, 5, 6), torch.tensor([3, 1]), np.ones(2, np.float32)
    bundle = convert(model, x.numpy(), batch_size=2, targets=("onnx",), dropout=True, prove=False)
    loss, gradients = Trainer(bundle, "numpy").loss_and_gradients(x.numpy(), y.numpy(), weight, 7)

    (mask,) = (torch.tensor(m).double() for m in drawn([(2, 4, 4, 5, 5)], [0.4], 7))
    model.double().train()
    q = model.queries(x.double()).unflatten(-1, (4, 3)).transpose(-2, -3)
    k, v = model.shared(x.double()).unflatten(-1, (2, 2, 3)).movedim(-4, -2).unbind(-4)
    k, v = (t.repeat_interleave(2, -3) for t in (k, v))
    p = torch.softmax(q @ k.transpose(-2, -1) / 3**0.5, -1) * mask
    wanted = cross_entropy(model.head((p @ v).reshape(2, -1, 3).mean(1)), y)
    wanted.backward()

    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        close(gradients[name], parameter.grad)


class Always(Grouped):
    """Dropout whatever the mode, as the function does that is not told of it."""

    def forward(self, x: Any) -> Any:
        self.training = True
        return super().forward(x)


def test_dropout_in_attention_is_off_unless_it_is_kept() -> None:
    torch.manual_seed(0)
    dropping, plain = Always(5, dropout=0.4), Grouped(5).eval()
    plain.load_state_dict(dropping.state_dict())
    x = torch.randn(2, 4, 5, 6).numpy()
    bundle = convert(dropping, x, batch_size=2, targets=("onnx",), prove=False)

    close(Trainer(bundle, "numpy").predict(x), plain(torch.tensor(x)).detach())


def test_dropout_in_the_attention_of_an_exported_program_is_refused(tmp_path: Path) -> None:
    program = torch.export.export(Grouped(5, dropout=0.4).train(), (torch.zeros(2, 4, 5, 6),))
    torch.export.save(program, tmp_path / "model.pt2")

    with pytest.raises(SourceError, match=r"scaled_dot_product_attention is random .* torch.nn.Dropout"):
        convert(tmp_path / "model.pt2", batch_size=2, dropout=True)
