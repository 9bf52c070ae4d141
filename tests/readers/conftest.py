# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from edgefl.bundle.manifest import Head, TensorSpec


@dataclass(frozen=True)
class Model:
    """What a reader asks of a model."""

    inputs: tuple[TensorSpec, ...]
    heads: tuple[Head, ...]


def model(*shape: int, classes: int = 3, dtype: str = "float32", label: tuple[int, ...] = ()) -> Model:
    output = TensorSpec("output", (8, classes), "float32")
    head = Head(TensorSpec("y", (8, *label), "int32"), output, "softmax_cross_entropy")
    return Model((TensorSpec("x", (8, *shape), dtype),), (head,))


@pytest.fixture
def numbers() -> np.ndarray:
    """12 examples of 3 numbers each."""
    return np.random.default_rng(5).normal(size=(12, 3)).astype(np.float32)
