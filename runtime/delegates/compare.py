# SPDX-License-Identifier: Apache-2.0
"""Whether a delegate's results are the CPU's, as closely as its arithmetic allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """Largest differences allowed: of an output in the 2-norm, and of one element against the largest."""

    norm: float
    element: float


TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-3),
    "float16": Tolerance(1e-2, 5e-2),
    "int8": Tolerance(5e-2, 1e-1),
}
"""By the coarsest arithmetic in use. Graphs that train are held to float32 whoever runs them."""

_NOISE = 1e-3
_LEVELS = 2
_TINY = 1e-38


def tolerance_for(kind: str, dtype: str) -> Tolerance:
    """What is allowed on a graph of this kind to a delegate with this arithmetic."""
    if kind.endswith("-int8"):
        return TOLERANCES["int8"]
    if kind == "step":
        return TOLERANCES["float32"]
    return TOLERANCES[dtype]


def worst(
    expected: Mapping[str, Array], made: Mapping[str, Array], tolerance: Tolerance
) -> tuple[float, str]:
    """The largest difference over what is allowed, and the output it is in; 1 is just allowed.

    Outputs far smaller than the largest are compared at its scale: where a gradient is rounding noise, noise
    of another kind is as good. Missing outputs, wrong shapes and values that should be finite count as
    infinity.
    """
    floor = _NOISE * max((_norm(v) for v in expected.values() if v.dtype.kind == "f"), default=0.0)
    found = [(_excess(v, made.get(name), tolerance, floor), name) for name, v in expected.items()]
    return max(found, key=lambda row: row[0])


def _excess(expected: Array, made: Array | None, tolerance: Tolerance, floor: float) -> float:
    if made is None or made.shape != expected.shape or made.dtype != expected.dtype:
        return math.inf
    if expected.dtype.kind != "f":
        levels = _LEVELS if expected.dtype.itemsize == 1 and expected.dtype.kind in "iu" else 0
        apart = int(np.abs(expected.astype(np.int64) - made.astype(np.int64)).max(initial=0))
        return apart / levels if levels else (math.inf if apart else 0.0)
    if not np.array_equal(np.isfinite(expected), np.isfinite(made)):
        return math.inf
    finite = np.isfinite(expected)
    difference = (made[finite].astype(np.float64) - expected[finite]).ravel()
    norm, largest = _norm(expected), float(np.abs(expected[finite]).max(initial=0.0))
    if not difference.size or not difference.any():
        return 0.0
    by_norm = float(np.linalg.norm(difference)) / max(norm, floor, _TINY)
    by_element = float(np.abs(difference).max()) / max(largest, floor, _TINY)
    return max(by_norm / tolerance.norm, by_element / tolerance.element)


def _norm(value: Array) -> float:
    flat = value[np.isfinite(value)].astype(np.float64).ravel()
    return float(np.linalg.norm(flat))
