# SPDX-License-Identifier: Apache-2.0
"""What is asked to be trained is trained, or named in a warning with the reason."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgefl.bundle import Bundle
from edgefl.converters import convert
from edgefl.converters.builder import GraphBuilder
from edgefl.errors import NotTrained, SelectionError
from edgefl.graph import TensorType, write_onnx
from edgefl.runtime import Trainer


def converted(model: Any, trainable: Any = "all", **options: Any) -> Bundle:
    return convert(
        model, np.zeros((1, 4), np.float32), trainable=trainable, batch_size=2, targets=("onnx",), **options
    )


def warned(model: Any, trainable: Any = "all") -> dict[str, str]:
    """What the report says of a conversion, whose warning names all of it."""
    with pytest.warns(NotTrained) as caught:
        bundle = converted(model, trainable)
    untrained: dict[str, str] = bundle.manifest.report["untrained"]
    assert len(caught) == 1 and caught[0].filename == __file__
    assert all(f"{name}: {why}" in str(caught[0].message) for name, why in untrained.items())
    assert not {p.name for p in bundle.manifest.trained} & set(untrained)
    return untrained


class TwoNames(nn.Module):
    """A module registered under two names."""

    def __init__(self, used: str) -> None:
        super().__init__()
        self.pos = nn.Linear(4, 4)
        self.block = nn.ModuleDict({"pos": self.pos, "norm": nn.LayerNorm(4)})
        self.used = used
        self.head = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        if "pos" in self.used:
            x = self.pos(x).tanh()
        if "block" in self.used:
            x = self.block["norm"](self.block["pos"](x))
        return self.head(x)


@pytest.mark.parametrize("used", ["pos", "block", "pos block"])
def test_a_module_under_two_names_is_trained_through_either(used: str) -> None:
    torch.manual_seed(0)
    model = TwoNames(used)
    x, y = torch.randn(2, 4), torch.tensor([0, 2])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotTrained)  # of `norm`, where only `pos` is used
        bundle = converted(model)

    _, gradients = Trainer(bundle, backend="numpy").loss_and_gradients(x.numpy(), y.numpy())
    nn.functional.cross_entropy(model(x), y).backward()
    wanted = {n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None}
    assert "pos.weight" in wanted and not any(name.startswith("block.pos") for name in wanted)
    assert set(gradients) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(gradients[name], value, rtol=1e-4, atol=1e-6)


def test_a_second_name_is_told_from_a_first() -> None:
    with pytest.raises(SelectionError, match=r"second names.*block\.pos\.weight is pos\.weight"):
        converted(TwoNames("block"), "block.pos.*")


class Idle(nn.Module):
    """One parameter is not used, another only through a detached tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.unused, self.scale = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return self.head(x * self.scale(x).detach())


def test_what_the_loss_does_not_depend_on_is_named() -> None:
    untrained = warned(Idle())

    assert set(untrained) == {"unused.weight", "unused.bias", "scale.weight", "scale.bias"}
    assert untrained["unused.weight"] == "the loss does not depend on it"
    assert "detach" in untrained["scale.bias"]


def test_what_is_not_selected_needs_no_warning() -> None:
    assert converted(Idle(), "head.*").manifest.report["untrained"] == {}


@pytest.mark.parametrize("trainable", ["*.weight", lambda name: name.endswith("weight")])
def test_what_the_model_freezes_is_named_where_it_was_selected(trainable: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).requires_grad_(True)
    model[0].requires_grad_(False)

    assert list(warned(model, trainable)) == ["0.weight"]
    for groups in ("all", "*", "*,!1.bias", "last:1"):
        assert converted(model, groups).manifest.report["untrained"] == {}


class Unregistered(nn.Module):
    """Layers where PyTorch does not look for them, and one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4)]
        self.teacher = [nn.Linear(4, 4).requires_grad_(False)]
        self.spare = {"one": nn.Linear(4, 4)}
        self.head = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.layers[0](x) + self.teacher[0](x))


def test_layers_that_pytorch_does_not_register_are_named() -> None:
    untrained = warned(Unregistered())

    assert set(untrained) == {"layers.0.weight", "layers.0.bias"}
    assert "ModuleList" in untrained["layers.0.bias"]


def test_layers_that_keras_does_not_track_are_named() -> None:
    keras = pytest.importorskip("keras")
    hidden = keras.layers.Dense(4, name="hidden")
    hidden.build((None, 4))
    inputs = keras.Input((4,))
    made = keras.layers.Lambda(lambda x: hidden(x), output_shape=(4,))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3)(made))

    untrained = warned(model)

    assert sorted(untrained) == ["hidden/bias", "hidden/kernel"]
    assert "attribute of a layer" in untrained["hidden/bias"]


def test_a_keras_layer_under_two_names_is_trained() -> None:
    keras = pytest.importorskip("keras")

    class Twice(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.pos, self.head = keras.layers.Dense(4, name="pos"), keras.layers.Dense(3, name="head")
            self.block = {"pos": self.pos}

        def call(self, x: Any) -> Any:
            return self.head(self.pos(x) + self.block["pos"](x))

    bundle = converted(Twice())

    assert [p.name.split("/", 1)[1] for p in bundle.manifest.trained] == [
        "pos/kernel",
        "pos/bias",
        "head/kernel",
        "head/bias",
    ]


def test_a_bias_of_one_element_in_an_onnx_file_is_trained() -> None:
    b = GraphBuilder()
    x = b.input("pixels", TensorType(np.dtype(np.float32), (2, 4)))
    hidden = b.add("Gemm", x, b.constant(np.ones((4, 3), np.float32)), b.constant(np.ones(1, np.float32)))
    b.output("price", b.add("Mul", hidden, b.constant(np.full(1, 0.5, np.float32))))

    bundle = convert(write_onnx(b.build("one")), loss="mean_squared_error", batch_size=2, targets=("onnx",))

    assert [p.shape for p in bundle.manifest.trained] == [(4, 3), (1,)]
