# SPDX-License-Identifier: Apache-2.0
"""PyTorch modules and programs against PyTorch itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgefl.converters.sources import Forward, load_forward
from edgefl.errors import SourceError, UnsupportedOperator
from tests.converters.source_oracle import close, outputs, random_data


def check(model: nn.Module, *shapes: tuple[int, ...], batch_size: int = 3, dtype: str = "float32") -> Forward:
    """The forward pass agrees with the module in evaluation mode."""
    torch.manual_seed(0)
    for value in (*model.parameters(), *model.buffers()):
        if value.is_floating_point():
            nn.init.uniform_(value, 0.1, 0.6)
    example = tuple(np.zeros(shape, dtype) for shape in shapes)

    forward = load_forward(model, example, batch_size=batch_size)

    data = random_data(forward)
    _, made = outputs(forward, data)
    with torch.no_grad():
        expected = model.eval()(*(torch.from_numpy(value) for value in data.values()))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for got, want in zip(made, expected, strict=True):
        close(got, want.numpy())
    return forward


def test_mlp_keeps_names_values_and_layouts() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh())

    forward = check(model, (1, 6))

    assert list(forward.parameters) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert forward.parameters["0.weight"].shape == (5, 6)
    np.testing.assert_array_equal(forward.parameters["2.bias"], model[2].bias.detach().numpy())
    assert forward.inputs == ("x",)
    assert forward.outputs == ("output",)
    assert list(forward.graph.inputs) == ["x", *forward.parameters]


def test_convolutions_of_two_axes() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.Conv2d(8, 8, 3, groups=8, padding="same", dilation=2),
        nn.ReLU6(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.PReLU(6),
        nn.AvgPool2d(2),
        nn.GroupNorm(3, 6),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(6),
        nn.Linear(6, 4),
    )

    forward = check(model, (1, 3, 14, 14))

    assert forward.buffers == {"1.running_mean", "1.running_var"}
    assert forward.trainable == set(forward.parameters) - forward.buffers


def test_convolutions_of_one_axis() -> None:
    model = nn.Sequential(
        nn.Conv1d(4, 6, 5, padding=2),
        nn.BatchNorm1d(6),
        nn.SiLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 6, 3, groups=3, dilation=2),
        nn.ConvTranspose1d(6, 4, 3, stride=2),
        nn.InstanceNorm1d(4, affine=True),
        nn.Mish(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
        nn.LogSoftmax(-1),
    )

    check(model, (1, 4, 20))


class Residual(nn.Module):
    """Two branches joined, a residual sum and a branch over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Any) -> Any:
        joined = torch.cat([F.elu(self.left(x)) + x, torch.sigmoid(self.right(x)) * x], 1)
        return (joined * self.scale).mean((2, 3)) ** 2


def test_branches_that_join() -> None:
    forward = check(Residual(), (1, 4, 6, 6))

    assert "scale" in forward.parameters


class Tied(nn.Module):
    """An embedding whose weight is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Any) -> Any:
        return self.head(self.embedding(tokens).mean(1))


def test_tied_parameters_are_one() -> None:
    forward = check(Tied(), (1, 5), dtype="int64")

    assert list(forward.parameters) == ["embedding.weight"]


class TwoInputs(nn.Module):
    """Named inputs and a dict of outputs; a buffer of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, image: Any, mask: Any) -> dict[str, Any]:
        hidden = self.linear(image)[:, self.order]
        return {"logits": hidden * mask, "hidden": hidden}


def test_named_inputs_and_outputs_keep_their_names() -> None:
    model = TwoInputs()
    example = {"image": np.zeros((1, 3)), "mask": np.zeros((1, 1))}

    forward = load_forward(model, example, batch_size=2)

    assert forward.inputs == ("image", "mask")
    assert forward.outputs == ("logits", "hidden")
    assert list(forward.parameters) == ["linear.weight", "linear.bias"]
    data = random_data(forward)
    _, made = outputs(forward, data)
    expected = model(**{name: torch.from_numpy(value) for name, value in data.items()})
    for got, name in zip(made, forward.outputs, strict=True):
        close(got, expected[name].detach())


def test_positional_inputs_are_named_after_the_arguments() -> None:
    forward = load_forward(TwoInputs(), (np.zeros((1, 3)), np.zeros((1, 1))), batch_size=2)

    assert forward.inputs == ("image", "mask")


def test_a_parameter_called_like_an_input_of_the_step_gets_a_prefix() -> None:
    forward = check(nn.Linear(3, 2), (1, 3))

    assert list(forward.parameters) == ["model.weight", "bias"]


def test_the_module_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    forward = load_forward(model, np.zeros((1, 3)), batch_size=4)

    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert forward.provenance["dropout"] == "off: 1"
    assert "0.weight" not in forward.trainable
    assert "0.weight" not in forward.buffers


def test_an_exported_program(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 2)).train()
    batch = {0: torch.export.Dim("batch", min=2)}
    program = torch.export.export(model, (torch.zeros(4, 6),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "model.pt2")

    forward = load_forward(tmp_path / "model.pt2", batch_size=3)

    assert list(forward.parameters)[:2] == ["0.weight", "0.bias"]
    data = random_data(forward)
    _, made = outputs(forward, data)
    close(made[0], model.eval()(torch.from_numpy(data["x"])).detach())


def test_a_program_of_another_fixed_batch_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(6, 5), (torch.zeros(4, 6),)), tmp_path / "model.pt2")

    with pytest.raises(SourceError, match="4 fixed on axis 0, asked for 3"):
        load_forward(tmp_path / "model.pt2", batch_size=3)


class Branching(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x


def test_a_branch_on_data_is_refused_with_its_line() -> None:
    with pytest.raises(
        SourceError, match=r"cannot export Branching: .*in forward: return x \* 2 if x.sum\(\) > 0"
    ):
        load_forward(Branching(), np.zeros((1, 3)), batch_size=2)


def test_a_module_needs_an_example() -> None:
    with pytest.raises(SourceError, match="needs example_inputs"):
        load_forward(nn.Linear(3, 3), batch_size=2)


def test_an_example_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(SourceError, match=r"layer 0 \(Linear\) of Sequential: .*dim"):
        load_forward(nn.Sequential(nn.Linear(3, 3)), np.zeros((1, 4)), batch_size=2)


def test_other_precisions_are_refused() -> None:
    with pytest.raises(SourceError, match=r"'0\.weight' is float64; edgefl trains float32"):
        load_forward(nn.Sequential(nn.Linear(3, 3)).double(), torch.zeros(1, 3).double(), batch_size=2)


class Cubes(nn.Module):
    def forward(self, x: Any) -> Any:
        return F.conv3d(x, torch.ones(1, 1, 2, 2, 2))


def test_convolutions_of_three_axes_are_refused_by_node() -> None:
    forward = load_forward(Cubes(), np.zeros((1, 1, 4, 4, 4)), batch_size=1)

    with pytest.raises(UnsupportedOperator, match=r"node Conv .*: 3 spatial axes"):
        outputs(forward, random_data(forward))
