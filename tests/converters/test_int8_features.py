# SPDX-License-Identifier: Apache-2.0
"""The frozen prefix in int8: a drop-in for the float one, on both targets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import ArtifactData, Bundle
from edgefl.converters.targets import TFLiteModel, int8_features
from edgefl.errors import CalibrationError
from edgefl.graph import read_onnx, run

pytest.importorskip("tensorflow")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

EXAMPLES = np.random.default_rng(0).normal(size=(40, 1, 12, 12)).astype(np.float32)


def convert(trainable: str, seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    nn = torch.nn
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * 25, 4)),
    )
    return edgefl.convert(model, EXAMPLES[:1], trainable=trainable, calibration=EXAMPLES, batch_size=8)


@pytest.fixture(scope="module")
def head_only() -> Bundle:
    return convert("last:1")


def expected(bundle: Bundle) -> Any:
    graph = read_onnx(bundle.artifact("onnx", "features"))
    return run(graph, {"x": EXAMPLES[:8]})["features"]


def distance(found: Any, wanted: Any) -> float:
    return float(np.sqrt(np.square(found - wanted).mean()) / wanted.std())


def test_onnx_int8_features_drop_in_for_the_float_ones(head_only: Bundle) -> None:
    data = head_only.artifact("onnx", "features-int8")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = session.run(["features"], {"x": EXAMPLES[:8]})[0]

    assert distance(found, expected(head_only)) < 0.03


def test_tflite_int8_features_drop_in_for_the_float_ones(
    head_only: Bundle, litert: Callable[..., Any]
) -> None:
    data = head_only.artifact("tflite", "features-int8")
    model = TFLiteModel(data, {"x": "x"}, {"features": "features"}, signature="features")
    found = litert(model, {"x": EXAMPLES[:8]})["features"]

    assert distance(found, expected(head_only)) < 0.03


def test_the_report_tells_the_error_of_each_target_and_between_them(head_only: Bundle) -> None:
    report = head_only.manifest.report["int8_features"]

    assert report["examples"] == len(EXAMPLES)
    assert 0 < report["between"] < 0.03
    assert all(0 < error < 0.03 for error in report["error"].values())
    assert all(size < report["float_bytes"] + 8000 for size in report["bytes"].values())


def test_new_parameters_leave_the_int8_features_in_the_bundle(head_only: Bundle) -> None:
    moved = head_only.with_parameters(head_only.parameters(), version=1)

    assert moved.manifest.find("onnx", "features-int8") is not None
    assert moved.manifest.find("onnx", "infer-int8") is None


def test_a_bundle_without_a_frozen_prefix_has_no_int8_features() -> None:
    whole = convert("all")

    assert whole.manifest.find("onnx", "features-int8") is None
    assert int8_features(whole, EXAMPLES) is None


def test_too_few_examples_are_refused(head_only: Bundle) -> None:
    with pytest.raises(CalibrationError, match="at least 16"):
        int8_features(head_only, EXAMPLES[:4])


def test_the_manifest_says_which_release_the_integer_files_need(head_only: Bundle) -> None:
    rows = head_only.manifest.report["targets"]["tflite"]

    assert rows.keys() >= {"step", "features", "infer", "features-int8", "infer-int8"}
    assert all(re.fullmatch(r"[12]\.\d+\.\d+", row["min_runtime"]) for row in rows.values())


@pytest.mark.parametrize("backend", ["onnx", "openvino", "tflite", "numpy"])
def test_int8_features_are_proved_and_then_used(head_only: Bundle, backend: str) -> None:
    """By their own numbers, which lie further from the float ones than an engine may be off."""
    report = edgefl.Trainer(head_only, backend).fit(EXAMPLES, np.zeros(40, np.int32))

    assert "features-int8" in {placement.graph for placement in report.placements}


def test_other_int8_features_are_not(head_only: Bundle) -> None:
    other = convert("last:1", seed=1)
    swapped = head_only.with_artifacts(
        [ArtifactData("onnx", "features-int8", other.artifact("onnx", "features-int8"))]
    )

    report = edgefl.Trainer(swapped, "onnx").fit(EXAMPLES, np.zeros(40, np.int32))

    assert {placement.graph for placement in report.placements} == {"features", "step"}
