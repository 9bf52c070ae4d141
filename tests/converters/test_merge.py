# SPDX-License-Identifier: Apache-2.0
"""Trained LoRA factors in the weights: the same outputs, and no factor left in any graph."""

from __future__ import annotations

from typing import Any

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


def test_what_has_nothing_to_merge_is_refused():
    model, x = network("tokens")
    with pytest.raises(ConversionError, match="no LoRA factors"):
        merge_bundle(edgefl.convert(model, x, batch_size=BATCH, targets=("onnx",)))
    with pytest.raises(ConversionError, match="not a device's slice"):
        merge_bundle(trained("tokens")[0].slice("tflite"))


def test_a_slice_with_the_graph_can_be_merged():
    bundle, x = trained("tokens")
    merged = merge_bundle(bundle.slice("onnx"))
    expected = Trainer(bundle, "numpy").predict(x)
    np.testing.assert_allclose(Trainer(merged, "numpy").predict(x), expected, rtol=1e-4, atol=1e-5)


# -- what people convert: transformers, weights in few bits, Keras


def bert() -> tuple[Any, Any]:
    from transformers import BertConfig, BertForSequenceClassification

    made = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    ids = rng.integers(0, 50, (BATCH, 8)).astype(np.int64)
    return BertForSequenceClassification(made), {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def llama() -> tuple[Any, Any]:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    made = LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, num_labels=3, pad_token_id=0, use_cache=False,
    )  # fmt: skip
    ids = rng.integers(1, 50, (BATCH, 6)).astype(np.int64)
    return LlamaForSequenceClassification(made), {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def keras_images() -> tuple[Any, Any]:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(40, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(6, 3),
            layers.Reshape((16, 6)),
            layers.Conv1D(5, 3),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    return model, rng.standard_normal((BATCH, 8, 8, 2)).astype(np.float32)


MODELS = {"bert": bert, "llama": llama, "keras": keras_images}


@pytest.mark.parametrize(("name", "bits"), [("bert", None), ("bert", 4), ("llama", 8), ("keras", None)])
def test_whatever_converts_merges(name, bits):
    torch.manual_seed(0)
    model, x = MODELS[name]()
    spec, targets = "lora:rank=3:alpha=6", ("onnx", "tflite")
    bundle = edgefl.convert(model, x, trainable=spec, batch_size=BATCH, frozen_bits=bits, targets=targets)
    bundle = bundle.with_parameters(moved(bundle), 1)
    expected = Trainer(bundle, "numpy").predict(x)
    untouched = bundle.with_parameters(zeroed(bundle), 0)
    spread = np.abs(expected - Trainer(untouched, "numpy").predict(x)).max()

    merged = Bundle.open(merge_bundle(bundle).to_bytes())

    assert spread > 0.01
    for backend in ("numpy", "onnx", "openvino", "tflite"):
        found = Trainer(merged, backend, delegate="cpu").predict(x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3 * spread, err_msg=backend)
    before, after = (read_onnx(b.artifact("onnx", "infer")).operators() for b in (bundle, merged))
    kinds = [row["kind"] for row in bundle.manifest.report["lora"]]
    assert after["MatMul"] == before["MatMul"] - 2 * kinds.count("MatMul") - kinds.count("Gather")
    assert after.get("Conv", 0) == before.get("Conv", 0) - 2 * kinds.count("Conv")
    assert not [p.name for p in merged.manifest.parameters if ".lora_" in p.name]


def moved(bundle: Bundle) -> dict[str, np.ndarray]:
    """Factors away from where they begin."""
    values = bundle.parameters()
    return {
        p.name: values[p.name] + 0.1 * rng.standard_normal(p.shape).astype(np.float32)
        for p in bundle.manifest.trained
    }


def test_weights_without_factors_stay_in_few_bits():
    model, x = bert()
    bundle = edgefl.convert(
        model,
        x,
        trainable="lora:rank=2:*query*",
        frozen_bits=8,
        batch_size=BATCH,
        targets=("onnx", "tflite"),
    )
    merged = merge_bundle(bundle)
    query = 32 * 32 * 3  # what one weight grows by from int8 to float32
    for target in ("onnx", "tflite"):
        grown = len(merged.artifact(target, "infer")) - len(bundle.artifact(target, "infer"))
        assert grown < query, target
    (name,) = [p.name for p in merged.manifest.parameters if "query.weight" in p.name]
    assert name not in merged.parameters()
