# SPDX-License-Identifier: Apache-2.0
"""Steps whose images have the batch last: the same functions as the plain steps, and torch's gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgefl.bundle import Bundle
from edgefl.converters import convert
from edgefl.graph import read_onnx, run


class Residual(nn.Module):
    """Convolutions with strides, a shortcut, channels joined, images reduced."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1)
        self.shortcut, self.last = nn.Conv2d(2, 6, 1, 2), nn.Conv2d(12, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))
        gate = torch.sigmoid(made.mean((2, 3), keepdim=True))
        return self.last(torch.cat([made * gate, made], 1)).mean((2, 3))


def scored(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(4))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "pools of odd images": (
        lambda: scored(
            nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(5, 6, 3), nn.ReLU6(), nn.AvgPool2d((3, 2)),
            nn.Conv2d(6, 3, 1), nn.Tanh(), nn.MaxPool2d(2, 1),
        ),
        (19, 13),
    ),
    "equal pixels": (lambda: scored(nn.Conv2d(2, 4, 3, padding=2), nn.MaxPool2d((2, 3))), (10, 10)),
    "residual": (Residual, (12, 8)),
    "residual of odd images": (Residual, (9, 7)),
    "strides and paddings": (
        lambda: scored(
            nn.Conv2d(2, 4, (5, 4), (2, 3), (2, 1)), nn.LeakyReLU(), nn.Conv2d(4, 3, 3, (1, 2), (0, 3)),
        ),
        (11, 12),
    ),
    "dilations": (
        lambda: scored(nn.Conv2d(2, 4, 3, 1, 2, dilation=2), nn.Conv2d(4, 3, (1, 3), 1, (0, 1))),
        (9, 8),
    ),
    "strides over dilations": (lambda: scored(nn.Conv2d(2, 4, 3, 2, 1, dilation=2)), (9, 8)),
    "kernels narrower than strides": (lambda: scored(nn.Conv2d(2, 4, (3, 2), 3)), (9, 9)),
    "kernels as wide as strides": (
        lambda: scored(
            nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, (3, 2), (3, 2)), nn.Conv2d(3, 2, (3, 1), 2),
        ),
        (9, 12),
    ),
    "columns of padding": (lambda: scored(nn.Conv2d(2, 4, 3, 1, 1), nn.Conv2d(4, 3, 3, 2, 1)), (2, 2)),
    "norms of frozen statistics": (
        lambda: scored(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        (8, 8),
    ),
}  # fmt: skip


def converted(name: str, batch: int = 5, **options: object) -> tuple[nn.Module, Bundle]:
    torch.manual_seed(0)
    make, size = NETWORKS[name]
    module, x = make().eval(), np.zeros((1, 2, *size), np.float32)
    module(torch.from_numpy(x))
    return module, convert(module, x, batch_size=batch, targets=("onnx",), **options)  # type: ignore[arg-type]


def steps(bundle: Bundle, feeds: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    graphs = [read_onnx(bundle.artifact("onnx", kind)) for kind in ("step", "step-channels-last")]
    return [run(graph, {name: feeds[name] for name in graph.inputs}) for graph in graphs]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_torch_s(name: str) -> None:
    module, bundle = converted(name)
    feeds = {**bundle.golden(), **bundle.parameters()}
    if name == "equal pixels":
        feeds["x"] = np.round(feeds["x"])
    scores = module(torch.from_numpy(feeds["x"]))
    loss = nn.functional.cross_entropy(scores, torch.from_numpy(feeds["y"]).long())
    loss.backward()
    expected = {f"grad/{n}": p.grad.numpy() for n, p in module.named_parameters() if p.grad is not None}

    for made in steps(bundle, feeds):
        assert made["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert expected.keys() <= made.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(made[key], value, rtol=1e-4, atol=1e-6)


def test_batch_statistics_are_those_of_the_plain_step() -> None:
    _, bundle = converted("norms of frozen statistics", batch_norm="batch")
    step, last = steps(bundle, {**bundle.golden(), **bundle.parameters()})

    assert step.keys() == last.keys()
    for key, value in step.items():
        np.testing.assert_allclose(last[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "flat"), [(2, False), (4, True)])
def test_images_of_few_examples_stay_as_they_are(batch: int, flat: bool) -> None:
    assert is_flat(converted("dilations", batch)[1]) is flat


def test_patches_side_by_side_stay_as_they_are() -> None:
    assert not is_flat(converted("kernels narrower than strides")[1])


def is_flat(bundle: Bundle) -> bool:
    graph = read_onnx(bundle.artifact("onnx", "step-channels-last"))
    first = next(node for node in graph if node.op == "Conv")

    return graph.type_of(first.inputs[0]).shape[0] == 1
