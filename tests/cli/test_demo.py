# SPDX-License-Identifier: Apache-2.0
"""The demo through its command: real processes, real HTTP, real data; fewer rounds than the real one."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.cli.demo import watch
from edgefl.cli.demo.processes import DemoFailure
from edgefl.cli.demo.recipe import PAIRS, Recipe
from edgefl.cli.demo.workers import Yardsticks
from tests.cli.commands import Command

DEVICE_PYTHON = os.environ.get("EDGEFL_DEVICE_PYTHON", sys.executable)
FIELDS = {
    "devices", "rounds", "accuracy_federated", "accuracy_central", "accuracy_int8",
    "bytes_up", "bytes_down", "bytes_up_dense", "seconds",
}  # fmt: skip


def demo(folder: Path, *options: object) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "edgefl",
        "demo",
        "--json",
        "-o",
        str(folder),
        "--device-python",
        DEVICE_PYTHON,
    ]
    done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_short_demo_survives_a_killed_server(tmp_path: Path) -> None:
    found = demo(tmp_path, "--rounds", 3, "--pairs", 2, "--crash-at", 2)

    assert found.keys() >= FIELDS
    assert (found["devices"], found["rounds"]) == (16, 3)
    assert found["updates_accepted"] == 4 * 3
    bundle = edgefl.Bundle.open(tmp_path / "watch.edgefl")
    assert bundle.manifest.model_version == 3
    assert found["bytes_up_dense"] == 4 * bundle.schema().size * 4 * 3
    assert 0 < found["bytes_up"] < found["bytes_up_dense"]
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in tmp_path.iterdir()} >= {"watch-int8.onnx", "watch-int8.tflite"}
    assert [pair["held_out"] for pair in found["pairs"]] == [[1, 2], [3, 4]]
    assert all(0 < pair["federated"] < 1 and 0 < pair["central"] < 1 for pair in found["pairs"])


def test_workers_end_with_a_demo_that_fails(tmp_path: Path) -> None:
    data = watch.load_recordings()

    with (
        pytest.raises(DemoFailure),
        Yardsticks(tmp_path / "none.edgefl", PAIRS, Recipe(), 0, data.where(data.subject < 0)),
    ):
        assert multiprocessing.active_children()
        raise DemoFailure("a device ended")

    until = time.monotonic() + 60
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_a_round_the_demo_does_not_have(call: Command) -> None:
    error = call("demo", "--rounds", 3, "--crash-at", 4, "--json").refusal()

    assert error == {"error": "OptionError", "message": "--crash-at 4: the demo has rounds 1 to 3"}


@pytest.mark.slow
def test_both_sources_keep_what_the_demo_promises(tmp_path: Path) -> None:
    found = {source: demo(tmp_path / source, "--source", source) for source in ("keras", "torch")}

    for result in found.values():
        assert result["accuracy_central"] - result["accuracy_federated"] <= 0.015
        assert result["accuracy_federated"] - result["accuracy_int8"] <= 0.01
        assert result["updates_accepted"] == result["devices_per_round"] * result["rounds"]
    assert abs(found["keras"]["accuracy_federated"] - found["torch"]["accuracy_federated"]) <= 0.01


def test_held_out_people_are_on_no_device() -> None:
    data = watch.load_recordings()

    parts = watch.split(data, (1, 2))

    assert len(parts.devices) == 16
    assert not any(name.startswith(("subject01", "subject02")) for name in parts.devices)
    assert len(parts.test[1]) == np.isin(data.subject, (1, 2)).sum()


def test_each_watch_normalises_by_its_own_recordings() -> None:
    data = watch.load_recordings()

    parts = watch.split(data, (1, 2))

    for x, _ in parts.devices.values():
        original = x[: len(x) // (watch.COPIES + 1)]
        assert np.allclose(original.mean(axis=(0, 1)), 0, atol=1e-3)
        assert np.allclose(original.std(axis=(0, 1)), 1, atol=1e-3)


def test_varied_copies_keep_labels_and_length_of_motion() -> None:
    data = watch.load_recordings()
    part = data.where((data.subject == 3) & (data.side == 0))

    x, y = watch._vary(part, np.random.default_rng(0))

    count = len(part.y)
    assert np.array_equal(y, np.tile(part.y, watch.COPIES + 1))
    # A turned sensor measures vectors of the same length, times the copy's scale.
    lengths = np.linalg.norm(x[..., :3], axis=-1)
    scale = lengths[count : 2 * count] / lengths[:count]
    assert np.allclose(scale, scale.mean(axis=1, keepdims=True), rtol=1e-3)
