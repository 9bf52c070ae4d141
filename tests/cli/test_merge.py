# SPDX-License-Identifier: Apache-2.0
"""`edgefl merge`, and the training modes of `edgefl convert`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgefl import Bundle, Trainer
from tests.cli.commands import Command

MODELS = """
import torch

def model():
    torch.manual_seed(0)
    stack = (torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Dropout(0.2))
    return torch.nn.Sequential(*stack, torch.nn.Linear(8, 3)), torch.zeros(1, 6)
"""


def test_convert_train_and_merge(call: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    options = ("--trainable", "lora:rank=2", "--dropout", "--batch-norm", "batch", "-t", "onnx")
    converted = call("convert", "models.py:model", *options, "-o", "a.edgefl")
    assert converted.status == 0, converted.err
    assert "BatchNorm   batch: 1 layers" in converted.out and "Dropout     kept: 3" in converted.out
    call("train", "a.edgefl", "-d", data, "-b", "numpy", "--epochs", 2, "-o", "b.edgefl")

    found = call("merge", "b.edgefl", "-o", "c.edgefl", "--json").json()

    assert found["merged"] == ["0.weight", "4.weight"] and found["artifacts"] == ["onnx/infer"]
    with np.load(data) as arrays:
        x = arrays["x"]
    one, two = (
        Trainer(Bundle.open(tmp_path / name), "numpy").predict(x) for name in ("b.edgefl", "c.edgefl")
    )
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_nothing_to_merge(call: Command, mlp: Path) -> None:
    error = call("merge", mlp, "--json").refusal()

    assert error["error"] == "ConversionError" and "no LoRA factors" in error["message"]
