# SPDX-License-Identifier: Apache-2.0
"""Gradients of whole models against their frameworks, also where a model stops or replaces gradients."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers
from torch import nn

from edgefl.converters.sources import load_forward
from edgefl.converters.sources.naming_keras import variable_names
from edgefl.errors import SourceError
from tests.converters.source_oracle import parameter_gradients, random_data, same_gradients
from tests.converters.test_sources_networks import (
    TOKENS,
    Bert,
    Llama,
    Recurrent,
    UNet,
    VisionTransformer,
    Windowed,
    masked,
    sequence,
)


def seeds_for(names: tuple[str, ...], results: Any) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        n: rng.normal(size=tuple(y.shape)).astype(np.float32) for n, y in zip(names, results, strict=True)
    }


def check_torch(model: nn.Module, *examples: Any, batch_size: int = 2) -> None:
    forward = load_forward(model, examples, batch_size=batch_size)
    data = random_data(forward)
    made = model.eval()(*(torch.from_numpy(value) for value in data.values()))
    results = made if isinstance(made, tuple) else (made,)
    seeds = seeds_for(forward.outputs, results)
    parameters = dict(model.named_parameters())
    total = sum((y * torch.from_numpy(s)).sum() for y, s in zip(results, seeds.values(), strict=True))
    found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True, materialize_grads=True)

    got = parameter_gradients(forward, data, seeds)

    same_gradients(got, {n: g.numpy() for n, g in zip(parameters, found, strict=True)})


def check_keras(model: Any, batch_size: int = 2) -> None:
    forward = load_forward(model, batch_size=batch_size)
    data = random_data(forward)
    (value,) = data.values()
    with tf.GradientTape() as tape:
        result = model(value, training=False)
        seeds = seeds_for(forward.outputs, [result])
        total = tf.reduce_sum(result * seeds["output"])
    variables = model.trainable_variables
    found = tape.gradient(total, [v.value for v in variables], unconnected_gradients="zero")

    got = parameter_gradients(forward, data, seeds)

    gradients = (tf.convert_to_tensor(g).numpy() for g in found)
    same_gradients(got, dict(zip(variable_names(model, variables), gradients, strict=True)))


@pytest.mark.parametrize(
    ("model", "examples"),
    [
        (Llama(), (TOKENS,)),
        (Bert(), (TOKENS, TOKENS)),
        (VisionTransformer(), (np.zeros((1, 3, 16, 16)),)),
        (Windowed(), (np.zeros((1, 8, 8, 8)),)),
        (UNet(), (np.zeros((1, 1, 8, 8)),)),
        (Recurrent(nn.LSTM(4, 3, batch_first=True)), (np.zeros((1, 4, 4)),)),
        (Recurrent(nn.GRU(4, 3, batch_first=True)), (np.zeros((1, 4, 4)),)),
    ],
    ids=["llama", "bert", "vit", "windowed", "unet", "lstm", "gru"],
)
def test_torch_networks(model: nn.Module, examples: tuple[Any, ...]) -> None:
    check_torch(model, *examples)


def test_keras_recurrent_networks() -> None:
    check_keras(sequence(layers.LSTM(3, return_sequences=True), layers.GRU(4), layers.Dense(2)))


def test_keras_masks() -> None:
    check_keras(masked(layers.Bidirectional(layers.GRU(3, return_sequences=True))))


@pytest.mark.slow
def test_keras_mobile_net() -> None:
    shape = (32, 32, 3)
    check_keras(keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=shape, classes=4))


class Stops(nn.Module):
    """Every way in which PyTorch lets values through without gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Any) -> Any:
        y = self.a(x)
        detached = self.b(y.detach())
        with torch.no_grad():
            silent = self.c(detached) * 2
        rounded = y + (torch.round(y) - y).detach()
        return detached * y + silent * detached + self.c(rounded) + y.data


def test_torch_stops_are_kept() -> None:
    check_torch(Stops(), np.zeros((1, 3)))


class Padded(nn.Module):
    """An embedding with a padding row that the output layer shares."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3, padding_idx=2)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Any) -> Any:
        return self.head(self.embedding(tokens))


def test_the_padding_row_gets_no_gradient_from_look_ups() -> None:
    check_torch(Padded(), np.zeros((1, 9), np.int64))


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient * 2


class OwnGradient(nn.Module):
    def forward(self, x: Any) -> Any:
        return Doubled.apply(x)


def test_a_torch_function_with_its_own_gradient_is_refused() -> None:
    with pytest.raises(SourceError, match=r"Doubled is a torch\.autograd\.Function"):
        load_forward(OwnGradient(), np.zeros((1, 3)), batch_size=2)


def test_gradients_scaled_by_frequency_are_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True))

    with pytest.raises(SourceError, match="scale_grad_by_freq"):
        load_forward(model, np.zeros((1, 3), np.int64), batch_size=2)


class Gate(layers.Layer):
    """Half of the gradient is stopped."""

    def build(self, shape: Any) -> None:
        self.w, self.v = (self.add_weight(shape=(shape[-1],)) for _ in range(2))

    def call(self, x: Any) -> Any:
        return keras.ops.stop_gradient(x * self.w) * self.v + x * self.w


def test_keras_stops_are_kept() -> None:
    check_keras(keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="silu"), Gate()]))


class OwnLayer(layers.Layer):
    def call(self, x: Any) -> Any:
        @tf.custom_gradient
        def doubled(x: Any) -> Any:
            return x * 1, lambda gradient: gradient * 2

        return doubled(x)


def test_a_tensorflow_function_with_its_own_gradient_is_refused() -> None:
    model = keras.Sequential([keras.Input((4,)), OwnLayer(name="mine")])

    with pytest.raises(
        SourceError, match=r"operation 'mine_1/IdentityN' in layer mine .OwnLayer. has a gradient of its own"
    ):
        load_forward(model, batch_size=2)
