# SPDX-License-Identifier: Apache-2.0
"""Conversion with frozen weights in few bits, and with rounding inside the steps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
from edgefl.converters.targets import TFLiteModel
from edgefl.errors import ConversionError

pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

DEVICE_PYTHON = os.environ.get("EDGEFL_DEVICE_PYTHON", sys.executable)
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(0, 96, (32, 12))
IMAGES = RANDOM.normal(size=(64, 1, 10, 10)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, 64)


class Language(torch.nn.Module):  # type: ignore[misc]
    """An embedding and attention, as language models have."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(96, 64)
        self.mix = torch.nn.TransformerEncoderLayer(64, 2, 128, batch_first=True, dropout=0)
        self.words = torch.nn.Linear(64, 96)

    def forward(self, x: Any) -> Any:
        return self.words(self.mix(self.table(x)))


def language(**options: Any) -> Bundle:
    torch.manual_seed(0)
    return edgefl.convert(
        Language(),
        TOKENS[:1].astype(np.int32),
        trainable="lora:rank=2",
        loss="next_token",
        batch_size=4,
        **options,
    )


@pytest.fixture(scope="module")
def whole() -> Bundle:
    return language()


@pytest.fixture(scope="module", params=[8, 4])
def packed(request: pytest.FixtureRequest) -> tuple[int, Bundle]:
    return request.param, language(frozen_bits=request.param)


def size(bundle: Bundle, target: str) -> int:
    return len(bundle.artifact(target, "step"))


def test_the_files_shrink(packed: tuple[int, Bundle], whole: Bundle) -> None:
    bits, bundle = packed
    frozen = sum(p.size * 4 for p in whole.manifest.parameters if p.role == "frozen")

    for target in ("onnx", "tflite"):
        saved = size(whole, target) - size(bundle, target)
        assert saved > frozen * (0.7 if bits == 8 else 0.8)
    assert len(bundle.to_bytes()) < len(whole.to_bytes()) / (2.5 if bits == 8 else 3)


def test_gradients_flow_to_the_factors_and_stay_close(packed: tuple[int, Bundle], whole: Bundle) -> None:
    bits, bundle = packed
    batch = TOKENS[:4].astype(np.int32)
    exact, rounded = (edgefl.Trainer(b, backend="numpy") for b in (whole, bundle))
    wanted = exact.loss_and_gradients(batch, batch)
    found = rounded.loss_and_gradients(batch, batch)

    assert found[0] == pytest.approx(wanted[0], rel=0.01 if bits == 8 else 0.1)
    moving = [name for name, value in wanted[1].items() if np.abs(value).max() > 1e-4]
    assert moving
    for name in moving:
        both = np.sum(found[1][name] * wanted[1][name])
        cosine = both / np.linalg.norm(found[1][name]) / np.linalg.norm(wanted[1][name])
        assert cosine > (0.99 if bits == 8 else 0.9)


def test_onnxruntime_and_numpy_compute_with_the_same_weights(packed: tuple[int, Bundle]) -> None:
    _, bundle = packed
    batch = TOKENS[:4].astype(np.int32)
    found = [
        edgefl.Trainer(bundle, backend=name).loss_and_gradients(batch, batch) for name in ("numpy", "onnx")
    ]

    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, value in found[0][1].items():
        assert np.allclose(value, found[1][1][name], rtol=1e-3, atol=1e-5)


def test_litert_computes_with_the_same_weights(
    packed: tuple[int, Bundle], litert: Callable[..., Any]
) -> None:
    _, bundle = packed
    artifact = bundle.manifest.find("tflite", "step")
    assert artifact is not None
    feeds = {
        "x": TOKENS[:4].astype(np.int32),
        "y": TOKENS[:4].astype(np.int32),
        "weight": np.ones(4, np.float32),
    }
    feeds.update({p.name: bundle.parameters()[p.name] for p in bundle.manifest.trained})
    inputs = {name: artifact.inputs.get(name, name) for name in feeds}
    outputs = {name: artifact.outputs.get(name, name) for name in ("loss",)}
    model = TFLiteModel(bundle.artifact("tflite", "step"), inputs, outputs, signature="step")
    wanted = edgefl.Trainer(bundle, backend="numpy").loss_and_gradients(feeds["x"], feeds["y"])

    assert float(litert(model, feeds)["loss"]) == pytest.approx(wanted[0], rel=1e-4)


def test_the_report_names_the_runtime_four_bits_need(packed: tuple[int, Bundle]) -> None:
    bits, bundle = packed
    row = bundle.manifest.report["targets"]["tflite"]["step"]
    engines = bundle.manifest.report["runs"]["tflite"]["engines"]

    assert ("LiteRT" in row["min_runtime"]) == (bits == 4)
    assert (row["newest"] == "DEQUANTIZE 6") == (bits == 4)
    assert ("tflite-runtime" in engines) == (bits == 8)


def images(**options: Any) -> Bundle:
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 4))
    return edgefl.convert(model, IMAGES[:1], batch_size=8, targets=("onnx", "tflite"), **options)


@pytest.fixture(scope="module")
def aware() -> Bundle:
    return images(qat=True)


def test_steps_with_rounding_train(aware: Bundle) -> None:
    trainer = edgefl.Trainer(aware, backend="onnx")
    before = trainer.evaluate(IMAGES, LABELS).loss
    trainer.fit(IMAGES, LABELS, epochs=10, lr=0.05)

    assert trainer.evaluate(IMAGES, LABELS).loss < before / 2


def test_rounding_touches_the_step_and_not_what_is_deployed(aware: Bundle) -> None:
    plain = images()

    assert aware.artifact("onnx", "infer") == plain.artifact("onnx", "infer")
    assert aware.artifact("onnx", "step") != plain.artifact("onnx", "step")
    assert aware.manifest.report["operators"]["step"]["Round"] == 4


def test_precision_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConversionError, match="8 and 4"):
        images(frozen_bits=5)


COMPARE = """
import sys
import numpy as np
import edgefl

bundle = edgefl.Bundle.open(sys.argv[1])
golden = bundle.golden()
loss, wanted = edgefl.Trainer(bundle, backend="numpy").loss_and_gradients(golden["x"], golden["y"])
for engine in sys.argv[2:]:
    found = edgefl.Trainer(bundle, backend=engine).loss_and_gradients(golden["x"], golden["y"])[1]
    for name, value in wanted.items():
        assert np.linalg.norm(found[name] - value) <= 1e-4 * np.linalg.norm(value) + 1e-7, (engine, name)
"""
"""Run with the newest engines, which read more into a graph than onnxruntime-training's build does."""


@pytest.mark.parametrize("bits", [8, 4])
def test_the_newest_engines_round_weights_and_nothing_else(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        *(torch.nn.TransformerEncoderLayer(64, 2, 128, batch_first=True, dropout=0) for _ in range(2)),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * 8, 4),
    )
    x = np.random.default_rng(1).normal(size=(8, 8, 64)).astype(np.float32)
    options = {"trainable": "lora:rank=4", "frozen_bits": bits, "targets": ("onnx",), "batch_size": 8}
    path = tmp_path / "packed.edgefl"
    edgefl.convert(model, x, **options).save(path)

    done = subprocess.run(
        [DEVICE_PYTHON, "-c", COMPARE, str(path), "onnx", "openvino"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
