# SPDX-License-Identifier: Apache-2.0
"""Weights of Keras models: drawn so that every layer matters."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    keras.utils.set_random_seed(0)
    yield


def redraw(model: Any) -> None:
    """Normal weights scaled by their fan-in, noise on vectors, and statistics other than 0 and 1."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if np.dtype(variable.dtype).kind == "f":
            variable.assign(_drawn(variable.path, np.asarray(variable), rng))


def _drawn(path: str, value: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    if path.endswith("moving_variance"):
        return rng.uniform(0.7, 1.4, value.shape)
    if value.ndim < 2 or path.endswith("moving_mean"):
        return value + 0.1 * rng.standard_normal(value.shape)
    inputs = value.shape[:2] if "depthwise" in path else value.shape[:-1]
    gain = 2.0 if value.ndim == 4 else 1.0
    return rng.standard_normal(value.shape) * math.sqrt(gain / math.prod(inputs))
