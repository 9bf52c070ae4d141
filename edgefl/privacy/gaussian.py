# SPDX-License-Identifier: Apache-2.0
"""Gaussian noise in whole numbers.

Noise in floating point gives itself away by its last bits (Mironov, 2012). Here sums are whole multiples of a
grid, and so is the noise: a normal deviate, rounded to the grid. Rounding a sum of multiples and a normal
deviate is rounding the deviate, so what is published follows from the Gaussian mechanism by post-processing
and its accounting holds as it is.

The deviate is drawn by rejection with the proposal of Karney (2016, algorithm N): its whole part `k` with
chances as `exp(-k^2 / 2)`, then a fraction `x`, kept with probability `exp(-x (2 k + x) / 2)`.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import numpy.typing as npt

from edgefl.privacy.entropy import Entropy

Whole = npt.NDArray[np.int64]

GRID_BITS = 24
SIGMA = 1 << GRID_BITS
"""Standard deviation of the noise in steps of the grid."""

_FRACTION_BITS = 53
_ROUNDS = 14
"""Whole parts that are drawn; the next one has a chance of 2**-141."""
_BLOCK = 1 << 17


def _chances() -> npt.NDArray[np.uint64]:
    """Cumulated chances of the whole parts but the last, in units of 2**-64."""
    with localcontext() as context:
        context.prec = 50
        weights = [(Decimal(-k * k) / 2).exp() for k in range(_ROUNDS)]
        total, sums, found = sum(weights), Decimal(0), []
        for weight in weights[:-1]:
            sums += weight
            found.append(min(int(sums / total * 2**64), 2**64 - 1))
    return np.array(found, np.uint64)


_CUMULATED = _chances()


def gaussian(count: int, entropy: Entropy) -> Whole:
    """Independent normal deviates of standard deviation `SIGMA`, rounded to whole numbers.

    The chance of every number up to nine standard deviations is within 2**-49 of the exact one, relatively;
    all beyond have less than 2**-60 together. Over a million parameters and a thousand rounds that moves
    epsilon by less than 1e-5 and delta by less than 1e-8.

    Returns:
        int64 of shape `(count,)`.
    """
    made = np.empty(count, np.int64)
    at = 0
    while at < count:
        some = _attempts(min(_BLOCK, 2 * (count - at) + 16), entropy)[: count - at]
        made[at : at + len(some)] = some
        at += len(some)
    return made


def _attempts(count: int, entropy: Entropy) -> Whole:
    """What is kept of so many proposals, about two thirds."""
    whole, fraction, coin = np.frombuffer(entropy(24 * count), "<u8").reshape(3, count)
    k = np.searchsorted(_CUMULATED, whole, side="right").astype(np.int64)
    # The sign and the fraction share a word: 53 bits and one that the fraction does not use.
    negative = (fraction & np.uint64(1)).astype(np.bool_)
    digits = (fraction >> np.uint64(64 - _FRACTION_BITS)).astype(np.int64)
    x = digits * 2.0**-_FRACTION_BITS
    # Scaling by a power of two is exact; 1 itself would not fit.
    chance = np.minimum(np.exp(-0.5 * x * (2.0 * k + x)), math.nextafter(1.0, 0.0)) * 2.0**64
    kept = coin < chance.astype(np.uint64)
    spare = _FRACTION_BITS - GRID_BITS
    size = (k << GRID_BITS) + ((digits + (1 << (spare - 1))) >> spare)
    made: Whole = np.where(negative, -size, size)[kept]
    return made
