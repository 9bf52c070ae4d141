# SPDX-License-Identifier: Apache-2.0
"""Trained weights back in the model they came from: the framework computes what the bundle does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch
from torch import nn

import edgefl
from edgefl import Bundle, Trainer
from edgefl.errors import SourceError

rng = np.random.default_rng(0)
BATCH = 4
IMAGES = rng.standard_normal((8, 3, 6, 6)).astype(np.float32)
Y = rng.integers(0, 3, 8)


class Tied(nn.Module):
    """A module under two names, a tensor under two names, BatchNorm, and a name the step takes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.body = nn.Linear(6, 6)
        self.again = nn.ModuleDict({"body": self.body})
        self.norm = nn.BatchNorm1d(6)
        self.scores = nn.Linear(6, 9, bias=False)
        self.scores.weight = self.table.weight
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Any) -> Any:
        h = self.norm(self.body(self.table(x).mean(1))).tanh() * self.weight
        return self.scores(self.again["body"](h))


def trained(model: Any, x: Any, y: np.ndarray, **options: Any) -> tuple[Bundle, Any]:
    """The bundle after two epochs, and what it predicts."""
    bundle = edgefl.convert(model, x, batch_size=BATCH, targets=("onnx",), **options)
    trainer = Trainer(bundle, "numpy")
    trainer.fit(x, y, epochs=2, lr=0.3)
    after = bundle.with_parameters(trainer.parameters(), 1)
    assert np.abs(trainer.predict(x) - Trainer(bundle, "numpy").predict(x)).max() > 0.01
    return after, trainer.predict(x)


def outputs(model: Any, x: np.ndarray) -> np.ndarray:
    if isinstance(model, keras.Model):
        return np.asarray(model(x, training=False))
    with torch.no_grad():
        return model.eval()(torch.from_numpy(x)).numpy()


def convolutional() -> nn.Module:
    stack = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)
    return nn.Sequential(*stack)


def keras_model() -> keras.Model:
    layers = keras.layers
    stack = layers.Conv2D(5, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten()
    return keras.Sequential([keras.Input((6, 6, 3)), *stack, layers.Dense(3, activation="softmax")])


def check(model: Any, bundle: Bundle, x: np.ndarray, expected: np.ndarray, **options: Any) -> Any:
    loaded = edgefl.load_into(model, Bundle.open(bundle.to_bytes()), **options)
    np.testing.assert_allclose(outputs(model, x), expected, rtol=1e-4, atol=1e-5)
    return loaded


@pytest.mark.parametrize("options", [{}, {"batch_norm": "batch"}, {"trainable": "last:1"}])
def test_a_pytorch_model(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = convolutional()
    bundle, expected = trained(model, IMAGES, Y, **options)

    loaded = check(model, bundle, IMAGES, expected)

    assert set(loaded.written) == {p.name for p in bundle.manifest.parameters}
    assert not loaded.merged and not loaded.kept


@pytest.mark.parametrize("options", [{}, {"batch_norm": "batch"}, {"trainable": "lora:rank=2,*bias"}])
def test_a_keras_model(options: dict[str, Any]) -> None:
    keras.utils.set_random_seed(0)
    model, x = keras_model(), np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))
    bundle, expected = trained(model, x, Y, **options)

    loaded = check(model, bundle, x, expected, merge=True)

    assert len(loaded.merged) == (2 if "trainable" in options else 0)


def test_tensors_and_modules_under_several_names() -> None:
    torch.manual_seed(0)
    model = Tied()
    x = rng.integers(0, 9, (8, 5)).astype(np.int64)
    bundle, expected = trained(model, x, rng.integers(0, 9, 8), batch_norm="batch")

    loaded = check(model, bundle, x, expected)

    assert "model.weight" in loaded.written
    assert model.scores.weight is model.table.weight


@pytest.mark.parametrize("bits", [None, 8])
def test_lora_is_merged_on_request(bits: int | None) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)), IMAGES.reshape(8, -1)[:, :40]
    bundle, expected = trained(model, x.copy(), Y, trainable="lora:rank=2", frozen_bits=bits)

    with pytest.raises(SourceError, match=r"merge=True to add them to 0\.weight, 2\.weight"):
        edgefl.load_into(model, bundle)
    loaded = edgefl.load_into(model, bundle, merge=True)

    assert loaded.merged == ("0.weight", "2.weight")
    # Where the bundle holds a weight as integers only, the model keeps its own: off by their rounding, half
    # of a 127th of the largest weight of each row at most, over 40 inputs.
    largest = 1 / np.sqrt(40)
    rounding = 0.5 * largest / 127 * np.abs(x).sum(1).max() * np.abs(bundle_weights(model)).sum(1).max()
    np.testing.assert_allclose(outputs(model, x), expected, rtol=1e-4, atol=rounding if bits else 1e-5)


def bundle_weights(model: nn.Module) -> np.ndarray:
    return model[2].weight.detach().numpy()


def test_a_merged_bundle_needs_no_request() -> None:
    from edgefl.converters.merge import merge_bundle

    torch.manual_seed(0)
    model = convolutional()
    bundle, expected = trained(model, IMAGES, Y, trainable="lora:rank=2")

    check(model, merge_bundle(bundle), IMAGES, expected)


def test_a_slice_leaves_frozen_weights_as_they_are() -> None:
    model = convolutional()
    bundle, expected = trained(model, IMAGES, Y, trainable="last:1")

    loaded = check(model, bundle.slice("onnx"), IMAGES, expected)

    assert loaded.written == ("4.weight", "4.bias") and "0.weight" in loaded.kept


def test_what_does_not_fit_is_listed_and_nothing_written() -> None:
    bundle, _ = trained(convolutional(), IMAGES, Y)
    other = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(80, 4))
    other.add_module("more", nn.Linear(4, 4, bias=False))
    before = other[0].weight.detach().clone()

    with pytest.raises(SourceError) as caught:
        edgefl.load_into(other, bundle)

    message = str(caught.value)
    assert "4.weight is (3, 80) in the bundle, (4, 80) in the model" in message
    assert "the bundle has no more.weight (4, 4)" in message
    assert torch.equal(before, other[0].weight)


def test_what_is_no_model_or_another_one_is_refused() -> None:
    bundle, _ = trained(convolutional(), IMAGES, Y, batch_norm="group")
    with pytest.raises(SourceError, match="normalises by groups"):
        edgefl.load_into(convolutional(), bundle)
    with pytest.raises(SourceError, match="no Keras model"):
        edgefl.load_into({"weights": 1}, bundle)
