# SPDX-License-Identifier: Apache-2.0
"""How tensors look from outside a Core ML model: what an app, or a test, has to hand over and gets back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.graph import Array, TensorType

MAX_RANK = 5


@dataclass(frozen=True)
class Border:
    """How a tensor looks from outside: arrays have one to five axes of float32 or int32.

    Attributes:
        name: its own name.
        shape: a scalar has one axis; of more than five axes the last are merged.
        dtype: `float32`, or `int32` for whole numbers and truth values.
        divisor: what a result is divided by on its way out, in float32.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    divisor: float = 1.0

    @staticmethod
    def of(name: str, type: TensorType, divisor: float = 1.0) -> Border:
        shape = type.shape or (1,)
        if len(shape) > MAX_RANK:
            shape = (*shape[: MAX_RANK - 1], int(np.prod(shape[MAX_RANK - 1 :])))
        return Border(name, shape, "float32" if type.dtype.kind == "f" else "int32", divisor)

    def entering(self, value: Any) -> Array:
        """An array as the model takes it."""
        return np.asarray(value).astype(self.dtype).reshape(self.shape)


def leaving(value: Any, type: TensorType) -> Array:
    """An array the model gave, as the graph has it."""
    return np.asarray(value).reshape(type.shape).astype(type.dtype)
