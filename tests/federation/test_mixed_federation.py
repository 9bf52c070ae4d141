# SPDX-License-Identifier: Apache-2.0
"""One model trained by devices on every engine at once, over HTTP, is the model that one engine trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.federation.mixed import NEEDS, ROUNDS, engines_here, run_mixed

pytest.importorskip("torch")
pytest.importorskip("fastapi")

CALLED = {
    "onnxruntime": "onnx onnxruntime 1",
    "litert": "tflite ai_edge_litert",
    "tflite-runtime": "tflite tflite_runtime",
    "ort-training": "ort-training onnxruntime-training",
    "numpy": "numpy numpy",
    "openvino": "openvino openvino",
    "coreml": "coreml evaluator",
    "coreml-updatable": "coreml updatable evaluator",
}
"""How engines name themselves: none of them stands in for another."""


def test_mixed_federation(tmp_path: Path) -> None:
    missing = sorted(set(NEEDS) - set(engines_here()))
    if missing:
        pytest.skip(f"engines that are not installed here: {', '.join(missing)}")

    mixed = run_mixed(list(NEEDS), tmp_path)

    for engine, report in mixed.devices.items():
        assert report["engine"].startswith(CALLED[engine])
        assert [row["error"] for row in report["rounds"]] == [""] * ROUNDS
    assert mixed.distance() < 1e-4
    per_round = [
        np.mean([report["rounds"][i]["loss"] for report in mixed.devices.values()]) for i in range(ROUNDS)
    ]
    np.testing.assert_allclose(per_round, mixed.losses, rtol=1e-4)
    assert per_round[-1] < per_round[0]
