# SPDX-License-Identifier: Apache-2.0
"""Steps for engines that keep channels last, on OpenVINO, against the NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgefl.bundle import Bundle
from edgefl.converters import convert
from edgefl.runtime import Trainer, open_backend


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.ReLU6(),
        nn.Conv2d(12, 12, 3, stride=(2, 1), padding=1, groups=12),
        nn.Conv2d(12, 6, 1),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3),
        nn.Tanh(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, (5, 2), padding=(2, 1)),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    torch.manual_seed(0)
    module = convolutions()
    module(torch.zeros(1, 3, 26, 11))
    return convert(module, np.zeros((1, 3, 26, 11), np.float32), batch_size=4, targets=("onnx",))


def test_openvino_gives_the_gradients_of_the_reference(bundle: Bundle) -> None:
    golden = bundle.golden()
    results = [
        Trainer(bundle, engine).loss_and_gradients(golden["x"], golden["y"])
        for engine in ("numpy", "openvino")
    ]

    (loss, expected), (other, found) = results
    assert other == pytest.approx(loss, rel=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5 * float(np.abs(value).max()))


def test_the_two_steps_are_the_same_function(bundle: Bundle) -> None:
    feeds = {**bundle.golden(), **bundle.parameters()}
    engine = open_backend(bundle, "numpy")
    step, last = (engine.load(bundle, kind)(feeds) for kind in ("step", "step-channels-last"))

    assert step.keys() == last.keys()
    for name, value in step.items():
        np.testing.assert_allclose(last[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "size"),
    [
        ((3, 3), (2, 2), (1, 1), (8, 8)),
        ((10, 4), (2, 2), (5, 1), (13, 6)),
        ((4, 5), (1, 3), (0, 2), (7, 11)),
        ((1, 2), (3, 2), (0, 0), (9, 9)),
        ((2, 3), (2, 4), (1, 1), (6, 7)),
    ],
)
def test_few_channels_with_strides(
    kernel: tuple[int, int], strides: tuple[int, int], padding: tuple[int, int], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, kernel, strides, padding)
    module = nn.Sequential(first, nn.Conv2d(4, 4, 1, groups=4), nn.Flatten(), nn.LazyLinear(2))
    x = np.zeros((1, 3, *size), np.float32)
    module(torch.from_numpy(x))
    made = convert(module, x, batch_size=4, targets=("onnx",))
    feeds = {**made.golden(), **made.parameters()}
    step, last = (open_backend(made, "numpy").load(made, k)(feeds) for k in ("step", "step-channels-last"))

    for name, value in step.items():
        np.testing.assert_allclose(last[name], value, rtol=1e-4, atol=1e-6)


def test_images_of_one_pixel_on_openvino() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(4), norm, nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten()
    ).eval()
    norm.running_mean.uniform_(-1, 1)
    made = convert(module, np.zeros((1, 3, 6, 6), np.float32), batch_size=4, targets=("onnx",))
    golden = made.golden()
    _, expected = Trainer(made, "numpy").loss_and_gradients(golden["x"], golden["y"])
    _, found = Trainer(made, "openvino").loss_and_gradients(golden["x"], golden["y"])

    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)


def test_models_without_convolutions_have_one_step() -> None:
    made = convert(nn.Linear(3, 2), np.zeros((1, 3), np.float32), batch_size=4, targets=("onnx",))

    assert made.manifest.find("onnx", "step-channels-last") is None
