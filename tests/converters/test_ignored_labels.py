# SPDX-License-Identifier: Apache-2.0
"""Labels that do not count, and means over tokens, from conversion to evaluation, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import edgefl
from edgefl import Trainer

F = torch.nn.functional
BATCH, LENGTH, WORDS = 3, 5, 7
rng = np.random.default_rng(0)
TOKENS = rng.integers(0, WORDS, (8, LENGTH)).astype(np.int32)
LABELS = TOKENS.copy()
LABELS[0, 2:] = LABELS[4, 1:] = LABELS[5] = -100


def loss_of(spec: str, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    if spec.startswith("next_token"):
        scores, labels = scores[:, :-1], labels[:, 1:]
    losses = F.cross_entropy(scores.movedim(-1, 1), labels, ignore_index=-100, reduction="none")
    counts = (labels != -100).sum(1)
    if "token" in spec.partition(":")[2]:
        return losses.sum() / counts.sum()
    here = counts > 0
    return (losses.sum(1)[here] / counts[here]).mean()


@pytest.mark.parametrize("engine", ["numpy", "onnx", "openvino", "tflite"])
@pytest.mark.parametrize(
    "spec", ["next_token", "next_token:reduction=token", "softmax_cross_entropy:reduction=token"]
)
def test_values_and_gradients_over_several_batches(bundles, spec: str, engine: str) -> None:
    model, bundle = bundles(spec)
    trainer = Trainer(bundle, engine, delegate="cpu")

    loss, gradients = trainer.loss_and_gradients(TOKENS, LABELS)

    model.zero_grad()
    expected = loss_of(spec, model(torch.tensor(TOKENS)), torch.tensor(LABELS).long())
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert trainer.evaluate(TOKENS, LABELS).loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        wanted = parameter.grad.numpy()
        np.testing.assert_allclose(gradients[name], wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.fixture(scope="module")
def bundles() -> Any:
    torch.manual_seed(0)
    model, made = torch.nn.Sequential(torch.nn.Embedding(WORDS, 6), torch.nn.Linear(6, WORDS)), {}

    def convert(spec: str) -> Any:
        if spec not in made:
            made[spec] = edgefl.convert(model, TOKENS, loss=spec, batch_size=BATCH)
        return model, made[spec]

    return convert


def test_one_label_per_example() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    x, y = rng.standard_normal((7, 4)).astype(np.float32), np.array([0, -1, 2, -1, 1, -1, -1])
    bundle = edgefl.convert(
        model, x, loss="softmax_cross_entropy:ignore_index=-1", batch_size=2, targets=("onnx",)
    )

    found = Trainer(bundle, "onnx").evaluate(x, y)

    scores = model(torch.tensor(x))
    expected = F.cross_entropy(scores, torch.tensor(y), ignore_index=-1).item()
    right = (scores.argmax(1).numpy() == y)[y >= 0].mean()
    assert found.loss == pytest.approx(expected, rel=1e-5) and found.accuracy == pytest.approx(right)
