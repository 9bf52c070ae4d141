# SPDX-License-Identifier: Apache-2.0
"""What devices are told of a new version: its step on a coarse grid, the rest of it later.

The server wants its parameters at some place and publishes the nearest one that a short frame can say. What
was rounded away stays in the remainder and is part of the next step, so nothing is lost and nothing drifts
(error feedback, Seide et al. 2014, on the way down). Devices start training from what was published, and so
does aggregation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from edgefl.delta import lattice
from edgefl.delta.lattice import Doubles
from edgefl.delta.selection import LARGEST_MAGNITUDE, sample
from edgefl.errors import NotFinite, StoreError, TensorFileError
from edgefl.parameters import Vector
from edgefl.tensorfile import read_metadata, read_tensors, write_tensors

# Multiples below a share of the unit become 0: cheaper than what they are worth while others are coarse.
_DEAD_ZONES = (1.0, 0.8, 0.65, 0.5)
_FINEST_SHARE = 2.0**-26
_SMALLEST_UNIT = 2.0**-100
_CHUNK = 1 << 20


class Exhausted(NotFinite):
    """Earlier steps were so fine that their sum with this one is no longer exact."""


@dataclass(frozen=True)
class Standing:
    """Where devices stand, and where the server wants them.

    Attributes:
        start: parameters of the first version, float32 of shape `(d,)`.
        moved: sum of all published steps, float64 of shape `(d,)`.
        remainder: what the server wants beyond that, float32 of shape `(d,)`.
        finest: the finest unit of any step so far, infinity before the first.
    """

    start: Vector
    moved: Doubles
    remainder: Vector
    finest: float = math.inf

    @staticmethod
    def first(start: Vector) -> Standing:
        return Standing(start, np.zeros(len(start)), np.zeros(len(start), np.float32))

    def weights(self) -> Vector:
        """What devices hold."""
        return lattice.weights(self.start, self.moved)

    def to_bytes(self) -> bytes:
        """All but the start, which is kept elsewhere."""
        arrays = {"moved": shortest(self.moved), "remainder": self.remainder}
        return write_tensors(arrays, {"finest": self.finest.hex()})

    @staticmethod
    def from_bytes(data: bytes, start: Vector) -> Standing:
        try:
            arrays, finest = read_tensors(data), float.fromhex(read_metadata(data)["finest"])
            return Standing(start, arrays["moved"].astype(np.float64), arrays["remainder"], finest)
        except (TensorFileError, KeyError, ValueError) as exc:
            raise StoreError(f"the published state in the database cannot be read: {exc}") from exc


@dataclass(frozen=True)
class Step:
    """What brings devices from one version to the next: whole multiples of a power of two."""

    moves: Doubles
    unit: float


def publish(standing: Standing, step: Doubles, error: float) -> tuple[Step, Standing]:
    """Publish the step the server wants to make, as closely as asked.

    Args:
        step: float64 of shape `(d,)`.
        error: most of the wanted difference that may wait, as squared length over squared length.

    Raises:
        NotFinite: the parameters would leave float32.
        Exhausted: they would not, and can be published as one step from the start.
    """
    held = standing.weights()
    wanted = held.astype(np.float64) + standing.remainder + step
    difference = wanted - held
    if not (np.abs(wanted).max(initial=0.0) < LARGEST_MAGNITUDE):
        raise NotFinite("the aggregated parameters have NaN, infinity or magnitudes over 1e37")
    unit, zone = choose(difference, error, _finest(held)) if difference.any() else (1.0, 0.5)
    moves = _round(difference, unit, zone)
    if not moves.any():
        # Nothing is said in any unit, and binds none of the steps to come.
        return Step(moves, 1.0), replace(standing, remainder=difference.astype(np.float32))
    moved, finest = standing.moved + moves, min(standing.finest, unit)
    if np.abs(moved).max(initial=0.0) >= lattice.EXACT * finest:
        raise Exhausted(f"parameters moved so far that steps of {finest:g} no longer show")
    after = Standing(standing.start, moved, standing.remainder, finest)
    rest = (wanted - after.weights()).astype(np.float32)
    return Step(moves, unit), Standing(standing.start, moved, rest, finest)


def choose(difference: Doubles, error: float, smallest: float) -> tuple[float, float]:
    """The coarsest unit whose rounding leaves at most the error, and the share of it that becomes 0.

    Args:
        difference: not all zeros.
    """
    seen = sample(difference[np.flatnonzero(difference)].astype(np.float32)).astype(np.float64)
    allowed = error * float(seen @ seen)
    unit = max(_power_above(float(np.abs(seen).max())), smallest)
    while unit > smallest:
        for zone in _DEAD_ZONES:
            left = seen - _round(seen, unit, zone)
            if float(left @ left) <= allowed:
                return unit, zone
        unit /= 2
    return smallest, 0.5


def shortest(moved: Doubles) -> Vector | Doubles:
    """The same numbers in float32 where it holds them."""
    short = moved.astype(np.float32)
    return short if np.array_equal(short, moved) else moved


def _finest(held: Vector) -> float:
    """A unit so small that the largest parameters would not notice it."""
    top = float(np.abs(held).max(initial=np.float32(0)))
    return max(_power_above(top * _FINEST_SHARE), _SMALLEST_UNIT)


def _power_above(value: float) -> float:
    return 2.0 ** math.frexp(value)[1] if value else 0.0


def _round(difference: Doubles, unit: float, zone: float) -> Doubles:
    """The nearest multiples of a unit, 0 for what is below a share of it."""
    moves = difference / unit
    for at in range(0, len(moves), _CHUNK):
        piece = moves[at : at + _CHUNK]
        piece[np.abs(piece) < zone] = 0
        np.rint(piece, out=piece)
        piece *= unit
    return moves
