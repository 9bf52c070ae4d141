# SPDX-License-Identifier: Apache-2.0
"""Hand-written PyTorch models of the zoo."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 32), nn.Tanh(), nn.Linear(32, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip


class CausalBlock(nn.Module):
    """Two dilated causal convolutions with weights in direction and length, and a residual."""

    def __init__(self, inputs: int, width: int, dilation: int) -> None:
        super().__init__()
        self.past = 2 * dilation
        norm = nn.utils.parametrizations.weight_norm
        self.first = norm(nn.Conv1d(inputs, width, 3, dilation=dilation))
        self.second = norm(nn.Conv1d(width, width, 3, dilation=dilation))
        self.skip = nn.Conv1d(inputs, width, 1) if inputs != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(F.pad(x, (self.past, 0))))
        y = F.relu(self.second(F.pad(y, (self.past, 0))))
        return F.relu(y + self.skip(x))


def tcn() -> nn.Module:
    blocks = [CausalBlock(6, 8, 1), CausalBlock(8, 8, 2), CausalBlock(8, 12, 4)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 5))


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, scores."""

    def __init__(self, layer: Any, vocabulary: int = 40, width: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.recurrent = layer(width, 16, num_layers=2, batch_first=True)
        self.norm, self.scores = nn.LayerNorm(16), nn.Linear(16, vocabulary)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.scores(self.norm(self.recurrent(self.embed(input_ids))[0]))


def gru_lm() -> nn.Module:
    return LanguageModel(nn.GRU)


def lstm_lm() -> nn.Module:
    return LanguageModel(nn.LSTM)


def double_conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(2, outputs), nn.SiLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """Two levels down by pooling, up by a transposed convolution and by interpolation, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = double_conv(1, 4), double_conv(4, 8), double_conv(8, 12)
        self.up_b, self.up_a = nn.ConvTranspose2d(12, 8, 2, 2), nn.Conv2d(8, 4, 1)
        self.d, self.e, self.last = double_conv(16, 8), double_conv(8, 4), nn.Conv2d(4, 1, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        a = self.a(pixel_values)
        b = self.b(F.max_pool2d(a, 2))
        c = self.c(F.max_pool2d(b, 2))
        d = self.d(torch.cat([b, self.up_b(c)], 1))
        up = F.interpolate(self.up_a(d), scale_factor=2, mode="bilinear", align_corners=False)
        return self.last(self.e(torch.cat([a, up], 1)))


def unet() -> nn.Module:
    return UNet()


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(6, 8, 3, 2, 1), nn.ELU(),
        nn.Flatten(), nn.Linear(392, 10), nn.Linear(10, 392), nn.Unflatten(1, (8, 7, 7)),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1), nn.PReLU(6),
        nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.Softplus(), nn.ConvTranspose2d(4, 1, 3, 1, 1),
    )  # fmt: skip


class TabTransformer(nn.Module):
    """Each category embedded, attention between them, joined with normalised numbers."""

    def __init__(self, columns: int = 6, cardinality: int = 9, numbers: int = 5, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Embedding(cardinality, width) for _ in range(columns))
        layer = nn.TransformerEncoderLayer(width, 2, 16, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.norm = nn.LayerNorm(numbers)
        wide = columns * width + numbers
        self.head = nn.Sequential(nn.Linear(wide, 16), nn.SELU(), nn.Dropout(0.1), nn.Linear(16, 3))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        rows = [embed(column) for embed, column in zip(self.embed, categories.unbind(1), strict=True)]
        attended = self.encoder(torch.stack(rows, 1)).flatten(1)
        return self.head(torch.cat([attended, self.norm(numbers)], 1))


def tab_transformer() -> nn.Module:
    return TabTransformer()
