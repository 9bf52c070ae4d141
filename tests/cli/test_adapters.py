# SPDX-License-Identifier: Apache-2.0
"""`edgefl adapters`: factors out of one bundle and into another."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgefl import Bundle
from tests.cli.commands import Command

MODELS = """
import torch

def model():
    torch.manual_seed(0)
    stack = torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
    return torch.nn.Sequential(*stack), torch.zeros(1, 6)
"""


def test_out_of_one_bundle_and_into_another(call: Command, data: Path, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    options = ("-t", "onnx", "-o", "a.edgefl")
    call("convert", "models.py:model", "--trainable", "lora:rank=2:alpha=3:0.*,2.*", *options)
    call("train", "a.edgefl", "-d", data, "-b", "numpy", "--epochs", 2, "-o", "b.edgefl")

    told = call("adapters", "export", "b.edgefl", "-o", "adapter")
    config = call("adapters", "export", "b.edgefl", "-o", "adapter", "--json").json()["config"]
    made = call("adapters", "import", "a.edgefl", "adapter", "-o", "c.edgefl", "--json").json()

    assert "rank 2, alpha 3, 1 modules, 2 in full" in told.out
    assert config["target_modules"] == ["0"] and config["modules_to_save"] == ["2"]
    assert made["bytes"] == (tmp_path / "c.edgefl").stat().st_size
    one, two = (Bundle.open(tmp_path / name).parameters() for name in ("b.edgefl", "c.edgefl"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_bundle_without_factors(call: Command, mlp: Path) -> None:
    error = call("adapters", "export", mlp, "--json").refusal()

    assert error["error"] == "ConversionError" and "no LoRA factors" in error["message"]
