# SPDX-License-Identifier: Apache-2.0
"""The int8 model on a device's engine, its delegates tried first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl

pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")

RUN = """
import sys
import numpy as np
import edgefl
from edgefl.runtime import open_backend

bundle = edgefl.Bundle.open(sys.argv[1])
program = open_backend(bundle, sys.argv[2]).load(bundle, "infer-int8")
np.save(sys.argv[3], np.concatenate([program({"x": row[None]})["output"] for row in bundle.golden()["x"]]))
"""


@pytest.mark.parametrize("backend", ["onnx", "tflite"])
def test_the_int8_model_runs_with_delegates_tried(backend: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x: Any = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)
    model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    bundle = edgefl.convert(model, x[:1], calibration=x, batch_size=8)
    bundle.save(tmp_path / "model.edgefl")
    command = [sys.executable, "-c", RUN, str(tmp_path / "model.edgefl"), backend, str(tmp_path / "out.npy")]
    environment = {**os.environ, "EDGEFL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr

    wanted = edgefl.Trainer(bundle, backend="numpy").predict(bundle.golden()["x"])
    found = np.load(tmp_path / "out.npy")
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
