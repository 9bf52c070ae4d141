# SPDX-License-Identifier: Apache-2.0
"""The quantiser: magnitudes above a threshold become integer levels of one step, unbounded.

With the step equal to the selection's threshold this is a uniform quantiser with a dead zone, the best
found on real updates at every rate. Level 0 is reconstructed at its own centroid `c0`, the others at a common
offset `r` inside their step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgefl.delta.bits import Array, Bytes, Ints
from edgefl.parameters import Vector

OFFSET_UNIT = 128
"""`r` is a multiple of 1/128 in [-1, 1): finer would not be noticed and costs bytes."""

_MOST_LEVELS = 1 << 20
_FINEST = 1024


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
        with np.errstate(over="ignore"):
            values = (np.float64(self.c0) + (levels + np.float64(self.r)) * np.float64(self.step)).astype(
                np.float32
            )
        return np.where(np.equal(levels, 0), np.float32(self.c0), values)


def step_for(magnitudes: Vector, factor: float = 1.0) -> float:
    """The step for selected magnitudes: their minimum times a factor.

    Where everything nonzero was selected the minimum may be almost nothing; the step then stays above 1/1024
    of the root mean square, about as fine as float16.
    """
    largest = float(magnitudes.max())
    scaled = magnitudes.astype(np.float64) / largest
    rms = largest * float(np.sqrt(np.mean(scaled * scaled)))
    step = max(factor * float(magnitudes.min()), rms / _FINEST, largest / _MOST_LEVELS)
    return float(np.float32(step)) or float(np.finfo(np.float32).smallest_subnormal)


def levels_of(magnitudes: Vector, step: float) -> Ints:
    """Level of every magnitude: how many whole steps lie between it and the smallest."""
    above = magnitudes.astype(np.float64)
    above -= float(magnitudes.min())
    above /= step
    return above.astype(np.int64)


def fit(magnitudes: Vector, levels: Ints, step: float) -> Grid:
    """The grid of least squared error for given levels."""
    first = levels == 0
    c0 = float(np.float32(np.mean(magnitudes[first], dtype=np.float64)))
    rest = ~first
    if not rest.any():
        return Grid(step, c0, 0.0)
    offset = float(np.mean((magnitudes[rest].astype(np.float64) - c0) / step - levels[rest]))
    return Grid(step, c0, snap_offset(offset))


def snap_offset(offset: float) -> float:
    """The nearest offset that the wire can carry."""
    return float(np.clip(np.rint(offset * OFFSET_UNIT), -OFFSET_UNIT, OFFSET_UNIT - 1)) / OFFSET_UNIT


def signed(magnitudes: Vector, negative: Bytes) -> Vector:
    """Apply signs given as 0 (plus) and 1 (minus)."""
    bits = magnitudes.view(np.uint32) ^ (negative.astype(np.uint32) << np.uint32(31))
    return bits.view(np.float32)
