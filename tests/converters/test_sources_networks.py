# SPDX-License-Identifier: Apache-2.0
"""Whole networks of both frameworks: recurrent, attention, and the collections that come with Keras."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn
from torch.nn import functional as F

from edgefl.converters.sources import load_forward
from tests.converters.source_oracle import close, outputs, random_data


def check_keras(model: Any, batch_size: int = 2, rtol: float = 1e-4) -> None:
    """The forward pass agrees with the model at inference; scales follow the largest output."""
    forward = load_forward(model, batch_size=batch_size)
    data = random_data(forward)
    values = list(data.values())
    expected = np.asarray(model(values[0] if len(values) == 1 else values, training=False))

    _, made = outputs(forward, data)

    np.testing.assert_allclose(made[0], expected, rtol=rtol, atol=rtol * float(np.abs(expected).max()))


def check_torch(model: nn.Module, *examples: Any, batch_size: int = 2) -> None:
    """The forward pass agrees with the module in evaluation mode."""
    forward = load_forward(model, examples, batch_size=batch_size)
    data = random_data(forward)

    _, made = outputs(forward, data)

    with torch.no_grad():
        expected = model.eval()(*(torch.from_numpy(value) for value in data.values()))
    for got, want in zip(made, expected if isinstance(expected, tuple) else (expected,), strict=True):
        close(got, want.numpy())


def sequence(*stack: Any) -> Any:
    return keras.Sequential([keras.Input((5, 4)), *stack])


def masked(*stack: Any) -> Any:
    """Token 0 is masked."""
    embedding = layers.Embedding(5, 4, mask_zero=True)
    return keras.Sequential([keras.Input((5,), dtype="int32"), embedding, *stack])


def test_keras_recurrent_layers_are_unrolled() -> None:
    check_keras(sequence(layers.LSTM(3, return_sequences=True), layers.GRU(4), layers.Dense(2)))


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.GRU, layers.LSTM])
@pytest.mark.parametrize("options", [{"go_backwards": True, "return_sequences": True}, {"use_bias": False}])
def test_keras_recurrent_layers_are_one_operator(kind: Any, options: Any) -> None:
    model = sequence(kind(3, bias_initializer="random_normal", **options), layers.Flatten(), layers.Dense(2))

    operators = [node.op for node in load_forward(model, batch_size=2).graph]

    assert {"SimpleRNN": "RNN"}.get(kind.__name__, kind.__name__) in operators
    check_keras(model)


def test_keras_recurrent_layers_that_onnx_has_not_are_unrolled() -> None:
    model = sequence(
        layers.GRU(3, activation="gelu", return_sequences=True), layers.GRU(3, reset_after=False)
    )

    operators = [node.op for node in load_forward(model, batch_size=2).graph]

    assert operators.count("GRU") == 1
    check_keras(model)


@pytest.mark.parametrize("kind", [layers.GRU, layers.LSTM])
def test_keras_states_go_from_layer_to_layer(kind: Any) -> None:
    x = keras.Input((5, 4))
    first, *states = kind(3, return_state=True)(x)
    second = kind(3)(x, initial_state=states)

    check_keras(keras.Model(x, layers.Dense(2)(keras.ops.concatenate([first, second]))))


def test_keras_recurrent_cells_are_unrolled() -> None:
    check_keras(sequence(layers.RNN([layers.SimpleRNNCell(3), layers.GRUCell(2, reset_after=False)])))


def test_keras_layers_are_left_as_they_were() -> None:
    model = sequence(layers.Bidirectional(layers.LSTM(3)))

    load_forward(model, batch_size=2)

    assert not model.layers[0].forward_layer.unroll
    assert model.layers[0].backward_layer.go_backwards


def test_keras_masks_hold_states_back() -> None:
    check_keras(masked(layers.LSTM(3, return_sequences=True), layers.GlobalAveragePooling1D()))


def test_keras_masks_reach_both_directions() -> None:
    check_keras(masked(layers.Bidirectional(layers.GRU(3, return_sequences=True))))


def test_keras_layers_over_time() -> None:
    check_keras(sequence(layers.TimeDistributed(layers.Dense(3)), layers.Bidirectional(layers.SimpleRNN(2))))


def test_keras_attention_with_masks() -> None:
    tokens = keras.Input((5,), dtype="int32")
    hidden = layers.Embedding(5, 8, mask_zero=True)(tokens)
    attended = layers.MultiHeadAttention(2, 4)(hidden, hidden, use_causal_mask=True)
    normal = layers.LayerNormalization()(hidden + attended)

    check_keras(keras.Model(tokens, layers.Dense(3, activation="gelu")(normal)))


class Recurrent(nn.Module):
    """A recurrent layer with all its results."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        y, state = self.layer(x)
        return (y, *state) if isinstance(state, tuple) else (y, state)


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(4, 3, batch_first=True, bidirectional=True),
        nn.GRU(4, 3, batch_first=True, num_layers=2),
        nn.RNN(4, 3, batch_first=True, nonlinearity="relu"),
    ],
)
def test_torch_recurrent_layers_are_unrolled(layer: nn.Module) -> None:
    check_torch(Recurrent(layer), np.zeros((1, 4, 4)))


def test_torch_transformer() -> None:
    check_torch(nn.Transformer(8, 2, 1, 1, 16, batch_first=True), np.zeros((1, 5, 8)), np.zeros((1, 4, 8)))


class Llama(nn.Module):
    """One decoder block: RMS norms, rotary positions, grouped queries, a gated MLP, tied embeddings."""

    def __init__(self, width: int = 16, heads: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.embed = nn.Embedding(11, width)
        self.q, self.o = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 24, bias=False) for _ in range(2))
        self.down = nn.Linear(24, width, bias=False)
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.register_buffer("frequencies", 1 / 10000 ** (torch.arange(0, self.size, 2) / self.size))

    def forward(self, tokens: Any) -> Any:
        batch, length = tokens.shape
        x = self.embed(tokens)
        y = self.norm1(x)
        q, k, v = (
            layer(y).view(batch, length, -1, self.size).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        angles = torch.outer(torch.arange(length).float(), self.frequencies).repeat(1, 2)
        q, k = (t * angles.cos() + _rotated(t) * angles.sin() for t in (q, k))
        k, v = (t.repeat_interleave(self.heads // self.groups, 1) for t in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(attended.transpose(1, 2).reshape(batch, length, -1))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return F.linear(x, self.embed.weight)


def _rotated(x: Any) -> Any:
    first, second = x.chunk(2, -1)
    return torch.cat([-second, first], -1)


class Bert(nn.Module):
    """One encoder block with a padding mask, as BERT has it, and the pooled first token."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.places = nn.Embedding(11, width, padding_idx=0), nn.Embedding(8, width)
        self.register_buffer("positions", torch.arange(8)[None])
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer, self.pool = (
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
            nn.Linear(width, 4),
        )

    def forward(self, tokens: Any, mask: Any) -> Any:
        batch, length = tokens.shape
        x = self.norm(self.words(tokens) + self.places(self.positions[:, :length]))
        q, k, v = (
            t.view(batch, length, self.heads, -1).permute(0, 2, 1, 3)
            for t in self.qkv(x).split(x.shape[-1], -1)
        )
        bias = (1.0 - (mask > 0)[:, None, None, :].float()) * torch.finfo(torch.float32).min
        scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias, -1)
        x = self.norm(x + self.out((scores @ v).permute(0, 2, 1, 3).flatten(2)))
        x = self.norm(x + self.outer(F.gelu(self.inner(x), approximate="tanh")))
        return torch.tanh(self.pool(x[:, 0]))


class VisionTransformer(nn.Module):
    """Patches, a class token, positions and one attention layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token, self.places = (nn.Parameter(torch.randn(1, n, width)) for n in (1, 17))
        self.attention, self.norm = nn.MultiheadAttention(width, 2, batch_first=True), nn.LayerNorm(width)

    def forward(self, image: Any) -> Any:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        y = self.norm(x)
        return (x + self.attention(y, y, y)[0])[:, 0]


class Windowed(nn.Module):
    """Attention in shifted windows with relative position biases, as Swin has it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bias = nn.Linear(8, 24), nn.Parameter(torch.randn(49, 2))
        self.register_buffer("index", torch.arange(256) % 49)

    def forward(self, image: Any) -> Any:
        batch, height, width, channels = image.shape
        x = torch.roll(image, (-2, -2), (1, 2)).view(batch, height // 4, 4, width // 4, 4, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels)
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
        bias = self.bias[self.index].view(16, 16, 2).permute(2, 0, 1)
        y = ((q @ k.transpose(-2, -1) + bias).softmax(-1) @ v).transpose(1, 2)
        y = y.reshape(batch, height // 4, width // 4, 4, 4, channels).permute(0, 1, 3, 2, 4, 5)
        return torch.roll(y.reshape(batch, height, width, channels), (2, 2), (1, 2))


class UNet(nn.Module):
    """Down, up by a transposed convolution and by interpolation, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 1, 1)

    def forward(self, x: Any) -> Any:
        a = F.relu(self.first(x))
        y = self.last(torch.cat([a, self.up(F.relu(self.down(a)))], 1))
        smooth = F.interpolate(F.max_pool2d(y, 2), scale_factor=2, mode="bilinear")
        return y + smooth + F.interpolate(F.avg_pool2d(y, 2), scale_factor=2)


TOKENS = np.zeros((1, 6), np.int64)


@pytest.mark.parametrize(
    ("model", "examples"),
    [
        (Llama(), (TOKENS,)),
        (Bert(), (TOKENS, TOKENS)),
        (VisionTransformer(), (np.zeros((1, 3, 16, 16)),)),
        (Windowed(), (np.zeros((1, 8, 8, 8)),)),
        (UNet(), (np.zeros((1, 1, 8, 8)),)),
    ],
    ids=["llama", "bert", "vit", "windowed", "unet"],
)
def test_torch_networks(model: nn.Module, examples: tuple[Any, ...]) -> None:
    check_torch(model, *examples)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50", "ConvNeXtTiny", "DenseNet121"]
)
def test_keras_applications(name: str) -> None:
    build = getattr(keras.applications, name)

    check_keras(build(weights=None, input_shape=(64, 64, 3), classes=10), rtol=1e-3)


def test_mobile_net() -> None:
    check_keras(
        keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=(32, 32, 3), classes=4),
        rtol=1e-3,
    )
