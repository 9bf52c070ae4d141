# SPDX-License-Identifier: Apache-2.0
"""Pads and pools that onnxruntime's optimizer must not make one of, against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgefl.converters import convert
from edgefl.runtime import Trainer
from tests.converters.source_oracle import close


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2)),
        nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)),
        nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(3, 2, 1, dilation=2)),
    ],
    ids=["counted", "ceil", "uncounted", "pad-counted", "pad-uncounted", "pad-max", "pad-max-dilated"],
)
def test_padding_before_a_pool_stays_what_it_is(pool: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), pool, nn.Flatten(), nn.LazyLinear(4))
    x, y = torch.randn(3, 2, 8, 8) - 1, torch.tensor([0, 3, 1])  # most pixels stay below zero
    nn.functional.cross_entropy(model(x), y).backward()

    bundle = convert(model, x.numpy(), batch_size=3, targets=("onnx",))

    trainer = Trainer(bundle, backend="onnx")
    _, gradients = trainer.loss_and_gradients(x.numpy(), y.numpy())
    close(trainer.predict(x.numpy()), model(x).detach())
    for name, parameter in model.named_parameters():
        close(gradients[name], parameter.grad)


def test_a_pad_before_a_pool_survives_quantization() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(27, 4)
    )
    x = torch.randn(32, 2, 8, 8) - 1

    bundle = convert(model, x[:1].numpy(), batch_size=3, calibration=x.numpy())

    error = bundle.manifest.report["int8"]["error"]
    assert set(error) == {"onnx", "tflite"} and max(error.values()) < 0.1
