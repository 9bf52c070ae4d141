# SPDX-License-Identifier: Apache-2.0
"""The quantiser: magnitudes above a threshold become integer levels of one step, unbounded.

With the step equal to the selection's threshold this is a uniform quantiser with a dead zone, the best
found on real updates at every rate. Level 0 is reconstructed at its own centroid `c0`, the others at a common
offset `r` inside their step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgefl.delta.bits import Array, Bytes
from edgefl.parameters import Vector

OFFSET_UNIT = 128
"""`r` is a multiple of 1/128 in [-1, 1): finer would not be noticed and costs bytes."""

_MOST_LEVELS = 1 << 20
_FINEST = 1024
_TABLE = 1 << 16

Levels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Grid:
    """How levels become magnitudes.

    Attributes:
        step: distance of two levels, exact in float32, positive.
        c0: magnitude of level 0, exact in float32, positive.
        r: offset inside the step for levels from 1 on.
    """

    step: float
    c0: float
    r: float

    def magnitudes(self, levels: Array) -> Vector:
        """float32 magnitudes, computed in float64 and rounded once: every machine gets the same bits."""
        top = int(levels.max(initial=0))
        if top < min(_TABLE, len(levels)):
            return self._exact(np.arange(top + 1)).take(levels.astype(np.intp, copy=False))
        return self._exact(levels)

    def _exact(self, levels: Array) -> Vector:
        with np.errstate(over="ignore"):
            above = (levels + np.float64(self.r)) * np.float64(self.step)
            values: Vector = (np.float64(self.c0) + above).astype(np.float32)
        values[np.equal(levels, 0)] = self.c0
        return values


def step_for(magnitudes: Vector, factor: float = 1.0) -> float:
    """The step for selected magnitudes: their minimum times a factor.

    Where everything nonzero was selected the minimum may be almost nothing; the step then stays above 1/1024
    of the root mean square, about as fine as float16.
    """
    largest = magnitudes.max()
    scaled = magnitudes / largest
    rms = float(largest) * float(np.sqrt(np.dot(scaled, scaled) / len(scaled)))
    step = max(factor * float(magnitudes.min()), rms / _FINEST, float(largest) / _MOST_LEVELS)
    return float(np.float32(step)) or float(np.finfo(np.float32).smallest_subnormal)


def levels_of(magnitudes: Vector, step: float) -> Levels:
    """Level of every magnitude: how many whole steps lie between it and the smallest."""
    above = magnitudes - magnitudes.min()
    above /= np.float32(step)
    levels: Levels = above.astype(np.int32)
    return levels


def fit(magnitudes: Vector, levels: Levels, step: float) -> Grid:
    """The grid of least squared error for given levels."""
    rest = np.flatnonzero(levels)
    if not len(rest):
        return Grid(step, _mean(magnitudes), 0.0)
    c0 = _mean(magnitudes[levels == 0])
    higher = magnitudes[rest].astype(np.float64)
    return Grid(step, c0, snap_offset(float(np.mean((higher - c0) / step - levels[rest]))))


def _mean(magnitudes: Vector) -> float:
    return float(np.float32(np.mean(magnitudes, dtype=np.float64)))


def snap_offset(offset: float) -> float:
    """The nearest offset that the wire can carry."""
    return float(np.clip(np.rint(offset * OFFSET_UNIT), -OFFSET_UNIT, OFFSET_UNIT - 1)) / OFFSET_UNIT


def signed(magnitudes: Vector, negative: Bytes) -> Vector:
    """Apply signs given as 0 (plus) and 1 (minus)."""
    bits = magnitudes.view(np.uint32) ^ (negative.astype(np.uint32) << np.uint32(31))
    return bits.view(np.float32)
