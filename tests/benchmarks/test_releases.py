# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import releases
from edgefl.bundle import Bundle

MLP = Path(__file__).parents[1] / "fixtures" / "mlp.edgefl"


def test_the_oldest_release_is_what_the_project_asks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = tmp_path / "pyproject.toml"
    project.write_text(
        'onnx = ["onnxruntime>=1.17"]\nlite = ["tflite-runtime==2.14.0; python_version > 3"]\n'
    )
    monkeypatch.setattr(releases, "PROJECT", project)

    pairs = releases.wanted(["onnxruntime", "tflite-runtime", "openvino==2025.1"])

    assert pairs == [
        *(("onnxruntime", "1.17"), ("onnxruntime", "1.19.2"), ("onnxruntime", "")),
        *(("tflite-runtime", "2.14.0"), ("openvino", "2025.1")),
    ]


def test_every_engine_has_an_oldest_release() -> None:
    assert all(releases.oldest(engine)[0] for engine in releases.FILES)


def test_an_engine_that_computes_otherwise_is_wrong() -> None:
    truth = {"loss": np.float64(2.0), "grad/w": np.array([3.0, 4.0])}

    def row(loss: float, w: tuple[float, float], own: releases.Errors = (0.0, 0.0)) -> dict[str, Any]:
        return releases._row(releases.errors({"loss": loss, "grad/w": np.array(w)}, truth), own)

    assert row(2.0000001, (3.0, 4.0001))["right"]
    assert not row(2.00001, (3.0, 4.0))["right"]
    assert not row(2.0, (3.0, 4.01))["right"]
    assert not row(2.0, (3.0, float("nan")))["right"]
    assert row(2.0, (3.0, 4.01), own=(0.0, 1e-3))["right"]  # NumPy is off by as much


def test_a_step_runs_with_the_optimizer_on_and_off() -> None:
    installed = releases.Release("tflite-runtime", "here", Path(sys.executable))

    rows = releases.compare(Bundle.open(MLP), [installed])

    assert set(rows) == {
        "numpy",
        *(f"tflite-runtime here, step, {mode}" for mode in ("on", "own kernels", "no memory shared")),
    }
    assert all(row["right"] for row in rows.values()), rows
    shown = releases.show({"mlp": rows})
    assert shown.count("1 of 1") == len(rows)
