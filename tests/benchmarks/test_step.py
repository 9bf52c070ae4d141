# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import step
from benchmarks.step_worker import peak_mib, timed


def worker(name: str, losses: list[float]) -> step.Worker:
    return step.Worker(name, SimpleNamespace(), losses=losses)  # type: ignore[arg-type]


def test_the_faster_stock_engine_counts_against_each_group_of_peers() -> None:
    row = {
        "onnx": {"min_ms": 9.0},
        "openvino": {"min_ms": 6.0},
        "eager": {"min_ms": 12.0},
        "tf_function": {"min_ms": 8.0},
        "train_on_batch": {"min_ms": 5.0},
    }

    found = step.ratios(row)

    assert found["PyTorch"] == pytest.approx(0.5)
    assert found["TensorFlow"] == found["best peer"] == pytest.approx(1.2)
    assert math.isnan(found["ort-training"])


def test_the_mean_is_geometric_and_leaves_out_what_is_unknown() -> None:
    assert step.mean([2.0, 8.0, math.nan]) == pytest.approx(4.0)
    assert math.isnan(step.mean([]))


def test_an_engine_that_trains_otherwise_is_marked() -> None:
    eager, right, wrong = (
        worker("eager", [2.0, 1.5]),
        worker("onnx", [2.0, 1.5001]),
        worker("openvino", [2.0, 1.6]),
    )

    step.check_losses([right, wrong, eager])

    assert not right.error and not eager.error
    assert "1.6" in wrong.error


def test_a_block_is_timed_step_by_step() -> None:
    losses = iter([3.0, 2.0])

    times, made = timed(lambda: next(losses))(2)

    assert made == [3.0, 2.0]
    assert len(times) == 2 and min(times) >= 0
    assert peak_mib() > 1


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    made: dict[str, Any] = step.measure(tmp_path, ["onnx_older"], threads=1, rounds=1)

    assert "BundleError" in made["onnx_older"]["error"]


def test_an_ended_process_is_an_error() -> None:
    process = SimpleNamespace(stdout=io.StringIO(""), wait=lambda: -11)
    made = step.Worker("onnx", process)  # type: ignore[arg-type]

    made.ready()

    assert made.row() == {"error": "its process ended with -11"}


def test_the_tables_name_what_was_not_timed(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"onnx": {"min_ms": 1.0, "median_ms": 2.0, "peak_mib": 60}, "eager": {"error": "no such thing"}}
    report = {
        "engines": ["onnx", "eager"],
        "models": {"cnn": {"conversion_s": 3.0}},
        "times": {"1": {"cnn": row}},
    }

    step.show(json.loads(json.dumps(report)))

    out = capsys.readouterr().out
    assert "| cnn | 2.0 (1.0) | - |" in out
    assert "not timed: cnn, eager, 1 thread(s): no such thing" in out


def test_unknown_models_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        step.main(["--models", "vgg"])
    assert "unknown vgg; allowed cnn" in capsys.readouterr().err
