# SPDX-License-Identifier: Apache-2.0
"""A bundle made in one environment trains in the other, to the same weights.

`make test` names the device environment's Python in EDGEFL_DEVICE_PYTHON; alone, this one plays both parts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgefl

OTHER = os.environ.get("EDGEFL_DEVICE_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def made_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4 * 9, 5))
    folder = tmp_path_factory.mktemp("bundle")
    edgefl.convert(model, np.zeros((1, 3, 20), np.float32), batch_size=8, name="shared").save(
        folder / "m.edgefl"
    )
    rng = np.random.default_rng(0)
    np.savez(
        folder / "data.npz",
        x=rng.standard_normal((40, 3, 20)).astype(np.float32),
        y=rng.integers(0, 5, 40).astype(np.int32),
    )
    return folder


def train(python: str, folder: Path, backend: str, output: Path) -> dict[str, np.ndarray]:
    command = [python, "-m", "edgefl", "train", "m.edgefl", "--data", "data.npz", "--epochs", "4", "--json"]
    done = subprocess.run(
        [*command, "--backend", backend, "-o", str(output)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return edgefl.Bundle.open(output).parameters()


@pytest.mark.parametrize("backend", ["onnx", "tflite", "numpy"])
def test_the_other_environment_trains_to_the_same_weights(
    made_here: Path, tmp_path: Path, backend: str
) -> None:
    ours = train(sys.executable, made_here, "numpy", tmp_path / "ours.edgefl")

    theirs = train(OTHER, made_here, backend, tmp_path / "theirs.edgefl")

    for name, value in ours.items():
        assert np.linalg.norm(theirs[name] - value) <= 1e-4 * np.linalg.norm(value)


def test_a_bundle_made_by_the_other_environment_trains_here(made_here: Path, tmp_path: Path) -> None:
    train(OTHER, made_here, "numpy", tmp_path / "theirs.edgefl")
    data = np.load(made_here / "data.npz")

    trainer = edgefl.Trainer(edgefl.Bundle.open(tmp_path / "theirs.edgefl"), backend="onnx")
    report = trainer.fit(data["x"], data["y"], epochs=1)

    assert report.steps == 5
