# SPDX-License-Identifier: Apache-2.0
"""Without TensorFlow a PyTorch model converts all the same, and what is left out is said."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import edgefl
from edgefl.errors import MissingDependency

X = np.zeros((1, 4), np.float32)


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def test_torch_alone_is_enough(no_tensorflow: None) -> None:
    calibration = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    bundle = edgefl.convert(torch.nn.Linear(4, 3), X, batch_size=2, calibration=calibration)

    assert bundle.manifest.targets == ("onnx",)
    (note,) = [note for note in bundle.manifest.report["notes"] if "TFLite" in note]
    assert "'tensorflow': pip install" in note


def test_what_is_asked_for_and_cannot_be_written_is_an_error(no_tensorflow: None) -> None:
    with pytest.raises(MissingDependency, match="the TFLite target needs the package 'tensorflow'"):
        edgefl.convert(torch.nn.Linear(4, 3), X, batch_size=2, targets=("onnx", "tflite"))


def test_with_tensorflow_nothing_is_left_out() -> None:
    bundle = edgefl.convert(torch.nn.Linear(4, 3), X, batch_size=2)

    assert bundle.manifest.targets == ("onnx", "tflite")
    assert not [note for note in bundle.manifest.report["notes"] if "TFLite" in note]
