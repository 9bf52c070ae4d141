# SPDX-License-Identifier: Apache-2.0
"""The networks of the step benchmark in PyTorch; `step_keras` has the same ones in Keras.

Modules are declared in the order in which `step_keras` makes its layers, so that weights can be copied by
position. BatchNorm is frozen (`eval`), its scale and shift are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.step_shapes import MOBILENET, Array, rotary


@dataclass(frozen=True)
class Network:
    """A model with the batch it is measured on.

    Attributes:
        module: with seeded weights; what has `requires_grad` is trained.
        x: the batch.
        y: int32 class labels, one per example or per position.
    """

    module: nn.Module
    x: Array
    y: Array


def conv_bn(given: int, made: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1) -> Any:
    """Convolution, BatchNorm; padded to keep the size at stride 1."""
    sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(k // 2 for k in sizes)
    conv = nn.Conv2d(given, made, sizes, stride, padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(made))


class Cnn(nn.Sequential):  # type: ignore[misc]
    """Three 3x3 convolutions, each pooled, and two dense layers; 105,486 parameters."""

    def __init__(self) -> None:
        def block(given: int, made: int) -> list[nn.Module]:
            return [nn.Conv2d(given, made, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

        super().__init__(
            *block(1, 16), *block(16, 32), *block(32, 64),
            nn.Flatten(), nn.Linear(64 * 9, 140), nn.ReLU(), nn.Linear(140, 10),
        )  # fmt: skip


class Residual(nn.Module):  # type: ignore[misc]
    """ResNet's basic block."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(given, made, 3, stride)
        self.second = conv_bn(made, made, 3)
        self.shortcut = nn.Conv2d(given, made, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet8(nn.Sequential):  # type: ignore[misc]
    """MLPerf Tiny's image classifier."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 16, 3), nn.ReLU(), Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip


class Inverted(nn.Module):  # type: ignore[misc]
    """MobileNetV2's block."""

    def __init__(self, given: int, made: int, stride: int, factor: int) -> None:
        super().__init__()
        inner = given * factor
        widen = [conv_bn(given, inner, 1), nn.ReLU6()] if factor > 1 else []
        depthwise = [conv_bn(inner, inner, 3, stride, inner), nn.ReLU6()]
        self.body = nn.Sequential(*widen, *depthwise, conv_bn(inner, made, 1))
        self.residual = stride == 1 and given == made

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Sequential):  # type: ignore[misc]
    """Width 0.35, 408,938 parameters with 10 classes."""

    def __init__(self) -> None:
        blocks, given = [], 16
        for factor, made, count, stride in MOBILENET:
            for i in range(count):
                blocks.append(Inverted(given, made, stride if i == 0 else 1, factor))
                given = made
        super().__init__(
            conv_bn(3, 16, 3, 2), nn.ReLU6(), *blocks, conv_bn(given, 1280, 1), nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 10),
        )  # fmt: skip


class DsCnn(nn.Sequential):  # type: ignore[misc]
    """MLPerf Tiny's keyword spotter on 49 x 10 features."""

    def __init__(self) -> None:
        layers = [conv_bn(1, 64, (10, 4), 2), nn.ReLU()]
        for _ in range(4):
            layers += [conv_bn(64, 64, 3, 1, 64), nn.ReLU(), conv_bn(64, 64, 1), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool) -> Tensor:
    """Attention of `[B, T, C]` tensors."""
    batch, steps, width = q.shape
    q, k, v = (t.reshape(batch, steps, heads, width // heads).transpose(1, 2) for t in (q, k, v))
    made = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return made.transpose(1, 2).reshape(batch, steps, width)


class Encoder(nn.Module):  # type: ignore[misc]
    """BERT's layer: attention and feed-forward, each followed by a LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.out(attend(self.q(x), self.k(x), self.v(x), self.heads, False)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):  # type: ignore[misc]
    """BERT-tiny: 2 layers, 128 wide, 30,522 tokens, two classes from the first position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(30522, 128), nn.Embedding(64, 128)
        self.norm = nn.LayerNorm(128, eps=1e-6)
        self.layers = nn.Sequential(*(Encoder(128, 2) for _ in range(2)))
        self.pooler, self.head = nn.Linear(128, 128), nn.Linear(128, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.norm(self.tokens(x) + self.positions.weight))
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class GruModel(nn.Module):  # type: ignore[misc]
    """A language model: 1,000 tokens, 64 wide, 128 hidden; 267,496 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1000, 64)
        self.gru = nn.GRU(64, 128, batch_first=True)
        self.head = nn.Linear(128, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.tokens(x))[0])


class Lora(nn.Module):  # type: ignore[misc]
    """A frozen linear layer with a trained update of rank 8, scaled by 2."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.randn(made, given) / given**0.5, requires_grad=False)
        self.a = nn.Parameter(torch.randn(8, given) / given**0.5)
        self.b = nn.Parameter(torch.randn(made, 8) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.base) + F.linear(F.linear(x, self.a), self.b) * 2.0


class Scale(nn.Module):  # type: ignore[misc]
    """Llama's RMSNorm, frozen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Decoder(nn.Module):  # type: ignore[misc]
    """Llama's layer with LoRA on all seven products."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = Scale(width)
        self.q, self.k, self.v, self.out = (Lora(width, width) for _ in range(4))
        self.norm2 = Scale(width)
        self.gate, self.up, self.down = Lora(width, inner), Lora(width, inner), Lora(inner, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        given = self.norm1(x)
        q, k = (self.rotated(layer(given), cos, sin) for layer in (self.q, self.k))
        x = x + self.out(attend(q, k, self.v(given), self.heads, True))
        given = self.norm2(x)
        return x + self.down(F.silu(self.gate(given)) * self.up(given))

    def rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        parts = x.unflatten(-1, (self.heads, -1))
        left, right = parts.chunk(2, -1)
        return (parts * cos + torch.cat([-right, left], -1) * sin).flatten(-2)


class Llama(nn.Module):  # type: ignore[misc]
    """Two layers, 128 wide, 4 heads, 1,000 tokens; only LoRA factors are trained."""

    def __init__(self, steps: int = 64, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1000, width).requires_grad_(False)
        self.layers = nn.ModuleList(Decoder(width, 344, heads) for _ in range(2))
        self.norm = Scale(width)
        self.head = nn.Linear(width, 1000, bias=False).requires_grad_(False)
        cos, sin = rotary(steps, width // heads)
        self.register_buffer("cos", torch.from_numpy(cos))
        self.register_buffer("sin", torch.from_numpy(sin))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        return self.head(self.norm(x))


def _images(*shape: int, classes: int) -> Callable[[np.random.Generator], tuple[Array, Array]]:
    return lambda rng: (
        rng.standard_normal(shape).astype(np.float32),
        rng.integers(0, classes, shape[0]).astype(np.int32),
    )


def _text(batch: int, steps: int, tokens: int, classes: int) -> Callable[[np.random.Generator], Any]:
    """Tokens with one label each, or with `classes` set, one per sequence."""

    def draw(rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.integers(0, tokens, (batch, steps + 1)).astype(np.int32)
        y = rng.integers(0, classes, batch).astype(np.int32) if classes else x[:, 1:].copy()
        return x[:, :-1].copy(), y

    return draw


NETWORKS: dict[str, tuple[type[nn.Module], Callable[[np.random.Generator], tuple[Array, Array]]]] = {
    "cnn": (Cnn, _images(32, 1, 28, 28, classes=10)),
    "resnet8": (ResNet8, _images(16, 3, 32, 32, classes=10)),
    "mobilenetv2": (MobileNetV2, _images(8, 3, 96, 96, classes=10)),
    "dscnn": (DsCnn, _images(16, 1, 49, 10, classes=12)),
    "bert": (Bert, _text(8, 64, 30522, 2)),
    "gru": (GruModel, _text(16, 32, 1000, 0)),
    "llama": (Llama, _text(4, 64, 1000, 0)),
}


def network(name: str) -> Network:
    """A network with seeded weights; norm parameters and statistics differ from their neutral start."""
    torch.manual_seed(0)
    made, draw = NETWORKS[name]
    module = made().eval()
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
            _perturb(layer)
    return Network(module, *draw(np.random.default_rng(0)))


def weights(module: nn.Module) -> list[Array]:
    """Parameters and BatchNorm statistics in the order of declaration."""
    left_out = ("num_batches_tracked", "cos", "sin")
    state = module.state_dict()
    return [value.numpy() for name, value in state.items() if not name.endswith(left_out)]


def _perturb(layer: Any) -> None:
    with torch.no_grad():
        layer.weight.uniform_(0.8, 1.2)
        layer.bias.uniform_(-0.1, 0.1)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.0)
