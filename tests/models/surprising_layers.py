# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own layers in small modules, some of them unusual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Calling(nn.Module):
    """A module that calls a function with its parts and its inputs."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Seq2Seq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5))

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.transformer(source, target, tgt_mask=self.mask, tgt_is_causal=None)


def transformer() -> nn.Module:
    return Seq2Seq()


def transformer_decoder() -> nn.Module:
    layer = nn.TransformerDecoderLayer(8, 2, 16, activation="gelu", norm_first=True, batch_first=True)
    decoder = nn.TransformerDecoder(layer, 2, nn.LayerNorm(8))
    return Calling(lambda m, x: m.decoder(x, m.memory(x)), decoder=decoder, memory=nn.Linear(8, 8))


def multihead_attention() -> nn.Module:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True, add_zero_attn=True)
    return Calling(lambda m, x: m.attention(x, x, x)[0], attention=attention)


def bidirectional_lstm() -> nn.Module:
    layer = nn.LSTM(8, 5, 2, batch_first=True, bidirectional=True, dropout=0.1)
    return Calling(lambda m, x: m.layer(x)[0], layer=layer)


def bidirectional_gru() -> nn.Module:
    return Calling(lambda m, x: m.layer(x)[0], layer=nn.GRU(8, 5, batch_first=True, bidirectional=True))


def projected_lstm() -> nn.Module:
    return Calling(lambda m, x: m.layer(x)[0], layer=nn.LSTM(8, 5, batch_first=True, proj_size=3))


def recurrent_cell() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        h, c = x.new_zeros(x.shape[0], 7), x.new_zeros(x.shape[0], 7)
        for t in range(x.shape[1]):
            h, c = m.cell(x[:, t], (h, c))
        return h

    return Calling(run, cell=nn.LSTMCell(8, 7))


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 5)
    )


def embedding_bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(40, 8, mode="mean"), nn.Linear(8, 5))


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.GELU("tanh"), nn.PixelShuffle(2), nn.Conv2d(3, 12, 2, 2),
        nn.InstanceNorm2d(12, affine=True), nn.Mish(), nn.PixelShuffle(2), nn.Hardswish(),
        nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3), nn.Tanhshrink(),
    )  # fmt: skip


def spectral_norm() -> nn.Module:
    norm = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(norm(nn.Linear(8, 6)), nn.CELU(), nn.Linear(6, 5), nn.LogSoftmax(-1))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(5, 4, 5)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return F.normalize(self.layer(left, right), dim=-1) * F.cosine_similarity(left[:, :4], right)[:, None]


def bilinear() -> nn.Module:
    return Pair()


def mixture() -> nn.Module:
    """The two best of four experts, weighted."""

    def run(m: Any, x: Tensor) -> Tensor:
        best, index = m.gate(x).softmax(-1).topk(2, -1)
        made = m.experts(x).view(-1, 4, 5)
        chosen = torch.gather(made, 1, index[:, :, None].expand(-1, -1, 5))
        return (best[:, :, None] * chosen).sum(1)

    return Calling(run, gate=nn.Linear(8, 4), experts=nn.Linear(8, 20))


def adaptive_pool() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(5), nn.AdaptiveMaxPool2d((2, 3)), nn.Flatten(),
        nn.Linear(24, 5),
    )  # fmt: skip


def grid_sample() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        turn = torch.tensor([[[0.9, -0.1, 0.05], [0.1, 0.9, 0.0]]], dtype=x.dtype).expand(x.shape[0], 2, 3)
        grid = F.affine_grid(turn, list(x.shape), align_corners=False)
        return F.grid_sample(m.conv(x), grid, align_corners=False)

    return Calling(run, conv=nn.Conv2d(3, 3, 1))


def fourier() -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        return m.head(torch.fft.rfft(m.first(x)).abs())

    return Calling(run, first=nn.Linear(16, 16), head=nn.Linear(9, 5))
