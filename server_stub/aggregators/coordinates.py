# SPDX-License-Identifier: Apache-2.0
"""Rules that compare updates parameter by parameter: median and trimmed mean (Yin et al., 2018,
arXiv:1803.01498).

Every update counts once, whatever its weight: a claimed number of examples would be a way to outvote others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edgefl.errors import DataError
from edgefl.server_stub.aggregators.base import Array, Updates, Vector64

BLOCK_BYTES = 128 << 20
"""Memory for the part of all updates that is compared at a time."""


def blocks(updates: Updates, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[Array, Vector64]]:
    """The parameters any update moves, in order and as many at a time as memory allows.

    Yields:
        Positions, int64 of shape `(k,)`, and the updates there, float64 of shape `(updates, k)`.

    Raises:
        DataError: there are no updates.
    """
    count, touched = 0, np.zeros(updates.size, np.bool_)
    for one in updates:
        touched[one.update.indices] = True
        count += 1
    if not count:
        raise DataError("there are no updates to aggregate")
    support = np.flatnonzero(touched)
    width = max(1, block_bytes // (8 * count))
    for at in range(0, len(support), width):
        positions = support[at : at + width]
        rows = np.zeros((count, len(positions)))
        for row, one in zip(rows, updates, strict=True):
            indices = one.update.indices
            low, high = np.searchsorted(indices, (positions[0], positions[-1] + 1))
            row[np.searchsorted(positions, indices[low:high])] = one.values()[low:high]
        yield positions, rows


def trimmed(share: float, count: int) -> int:
    """How many of `count` values are a share of them, rounded up, and so few that some are left on cutting
    them off at both ends."""
    return min(math.ceil(share * count - 1e-9), (count - 1) // 2)


def _by_coordinate(updates: Updates, rule: Callable[[Vector64], Vector64]) -> Vector64:
    step = np.zeros(updates.size)
    for positions, rows in blocks(updates):
        step[positions] = rule(rows)
    return step


class Median:
    """The median of every parameter. Right as long as less than half of the updates lie."""

    def __call__(self, updates: Updates) -> Vector64:
        return _by_coordinate(updates, lambda rows: np.asarray(np.median(rows, axis=0)))


@dataclass(frozen=True)
class TrimmedMean:
    """The mean of every parameter without its smallest and its largest values.

    Attributes:
        share: of the updates, cut off at either end; right as long as no more of them lie.
    """

    share: float

    def __call__(self, updates: Updates) -> Vector64:
        def rule(rows: Vector64) -> Vector64:
            cut = trimmed(self.share, len(rows))
            rows.sort(axis=0)
            return np.asarray(rows[cut : len(rows) - cut].mean(axis=0))

        return _by_coordinate(updates, rule)
