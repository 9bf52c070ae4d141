# SPDX-License-Identifier: Apache-2.0
"""Losses and labels on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl import Bundle
from edgefl.bundle import TensorSpec
from edgefl.cli.loss_options import labels, losses
from edgefl.errors import OptionError
from tests.cli.commands import Command

MODELS = """
import torch

def two():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 3), torch.nn.Linear(4, 1)

        def forward(self, x):
            return {"kind": self.a(x), "price": self.b(x)}

    torch.manual_seed(0)
    return Two(), torch.zeros(1, 4)


def absolute(output, y):
    return (output - y).abs()
"""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["huber:delta=0.5"], "huber:delta=0.5"),
        (["a=huber:delta=0.5"], {"a": ("huber:delta=0.5", 1.0)}),
        (["a=cosine", "b=0.3*huber"], {"a": ("cosine", 1.0), "b": ("huber", 0.3)}),
    ],
)
def test_losses(texts, expected):
    assert losses(texts) == expected


def test_labels():
    assert labels([]) is None
    assert labels(["int32"]) == TensorSpec("y", (1,), "int32")
    assert labels(["a=float32:3,2"]) == {"a": TensorSpec("y", (1, 3, 2), "float32")}


@pytest.mark.parametrize("texts", [["cosine", "huber"], ["a=cosine", "huber"], ["0.3*huber"], ["x*huber"]])
def test_losses_that_make_no_sense(texts):
    with pytest.raises(OptionError):
        losses(texts)


@pytest.mark.parametrize("text", ["string", "int32:a", "float32:0"])
def test_labels_that_make_no_sense(text):
    with pytest.raises(OptionError):
        labels([text])


def test_a_function_and_two_outputs(call: Command, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODELS)
    options = ("--loss", "kind=softmax_cross_entropy", "--loss", "price=0.5*models.py:absolute")

    ran = call("convert", "models.py:two", *options, "--label", "price=float32:1", "-t", "onnx")

    assert ran.status == 0, ran.err
    heads = Bundle.open(tmp_path / "model.edgefl").manifest.heads
    assert [h.loss for h in heads] == ["softmax_cross_entropy", "0.5*callable:absolute"]
    random = np.random.default_rng(0)
    arrays = {"x": random.standard_normal((40, 4)).astype(np.float32), "weight": random.uniform(0, 1, 40)}
    arrays |= {"y/kind": random.integers(0, 3, 40), "y/price": random.standard_normal((40, 1))}
    np.savez(tmp_path / "mine.npz", **arrays)
    trained = call(
        "train", "model.edgefl", "-d", "mine.npz", "-b", "numpy", "-o", "trained.edgefl", "--json"
    ).json()
    assert trained["examples"] == 40
