# SPDX-License-Identifier: Apache-2.0
"""Trained LoRA factors in the weights: the same outputs, and no factor left in any graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgefl
from edgefl import Bundle, Trainer
from edgefl.converters.merge import merge_bundle
from edgefl.errors import ConversionError
from edgefl.graph import read_onnx

rng = np.random.default_rng(0)
BATCH = 4


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.body(self.table(x))).mean(1))


def network(name: str) -> tuple[nn.Module, np.ndarray]:
    torch.manual_seed(0)
    if name == "tokens":
        return Tokens(), rng.integers(0, 9, (BATCH, 5)).astype(np.int32)
    if name == "convolutions":
        stack = (
            nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1),
            nn.ReLU(), nn.Flatten(), nn.Linear(45, 3),
        )  # fmt: skip
        return nn.Sequential(*stack), rng.standard_normal((BATCH, 3, 8, 8)).astype(np.float32)
    return (
        nn.Sequential(nn.Conv1d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3)),
        rng.standard_normal((BATCH, 4, 10)).astype(np.float32),
    )


def trained(name: str, spec: str = "lora:rank=2:alpha=4") -> tuple[Bundle, np.ndarray]:
    model, x = network(name)
    bundle = edgefl.convert(model, x, trainable=spec, batch_size=BATCH, targets=("onnx", "tflite"))
    trainer = Trainer(bundle, "numpy")
    values = {
        n: v + 0.2 * rng.standard_normal(v.shape).astype(np.float32) for n, v in trainer.parameters().items()
    }
    return bundle.with_parameters(values, 3), x


@pytest.mark.parametrize("name", ["tokens", "convolutions", "sequence"])
def test_the_merged_model_gives_the_same_outputs(name):
    bundle, x = trained(name)
    merged = Bundle.open(merge_bundle(bundle).to_bytes())
    expected = Trainer(bundle, "numpy").predict(x)
    for backend in ("numpy", "onnx"):
        np.testing.assert_allclose(Trainer(merged, backend).predict(x), expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(Trainer(bundle.with_parameters(zeroed(bundle), 0), "numpy").predict(x), expected)
    assert not [p.name for p in merged.manifest.parameters if ".lora_" in p.name]
    assert {(a.target, a.kind) for a in merged.manifest.artifacts} == {("onnx", "infer"), ("tflite", "infer")}
    assert merged.manifest.model_version == 3


def zeroed(bundle: Bundle) -> dict[str, np.ndarray]:
    return {p.name: np.zeros(p.shape, np.float32) for p in bundle.manifest.trained}


@pytest.mark.parametrize("name", ["tokens", "convolutions", "sequence"])
def test_the_graph_is_as_small_as_without_factors(name):
    bundle, x = trained(name)
    plain = edgefl.convert(network(name)[0], x, trainable="*bias", batch_size=BATCH, targets=("onnx",))
    found = read_onnx(merge_bundle(bundle).artifact("onnx", "infer")).operators()
    usual = read_onnx(plain.artifact("onnx", "infer")).operators()
    for operator in ("MatMul", "Conv", "Gather"):
        assert found.get(operator, 0) == usual.get(operator, 0)


def test_the_weights_are_those_of_the_arithmetic():
    bundle, _ = trained("tokens")
    merged, values = merge_bundle(bundle).parameters(), bundle.parameters()
    update = values["head.weight.lora_a"] @ values["head.weight.lora_b"] * (4 / 2)
    np.testing.assert_allclose(merged["head.weight"], values["head.weight"] + update.T, rtol=1e-5)
    np.testing.assert_allclose(
        merged["table.weight"],
        values["table.weight"] + 2 * values["table.weight.lora_a"] @ values["table.weight.lora_b"],
        rtol=1e-5,
    )


def test_other_trained_parameters_stay_inputs():
    bundle, x = trained("tokens", "lora:rank=1:*head*,body.bias")
    merged = merge_bundle(bundle)
    assert [p.name for p in merged.manifest.trained] == ["body.bias"]
    expected = Trainer(bundle, "numpy").predict(x)
    np.testing.assert_allclose(Trainer(merged, "onnx").predict(x), expected, rtol=1e-4, atol=1e-5)


def test_a_bundle_without_factors_and_a_slice_are_refused():
    model, x = network("tokens")
    with pytest.raises(ConversionError, match="no LoRA factors"):
        merge_bundle(edgefl.convert(model, x, batch_size=BATCH, targets=("onnx",)))
    with pytest.raises(ConversionError, match=r"does not hold table\.weight"):
        merge_bundle(trained("tokens")[0].slice("onnx"))
