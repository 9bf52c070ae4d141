# SPDX-License-Identifier: Apache-2.0
"""Rules that only look at how far updates are from each other: Krum, Multi-Krum and the geometric median.

Krum is Blanchard et al., 2017 (arXiv:1703.02757); the geometric median by smoothed Weiszfeld steps is RFA,
Pillutla et al., 2022 (arXiv:1912.13445). Every update counts once, whatever its weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgefl.server_stub.aggregators.base import Contribution, Updates, Vector64
from edgefl.server_stub.aggregators.coordinates import blocks, trimmed
from edgefl.server_stub.aggregators.mean import weighted_mean

_STEPS = 1000
_CLOSE = 1e-12
_SMOOTHING = 1e-9
_NOTHING = 1e-150


def embedded(updates: Updates) -> Vector64:
    """The updates as points just as far from each other in as many dimensions as there are updates.

    QR with updates as columns, block after block: rounding is relative to each update alone, so that one that
    is beyond all measure does not blur the others.

    Returns:
        One row per update, float64.

    Raises:
        DataError: there are no updates.
    """
    found = np.zeros((0, 0))
    for _, rows in blocks(updates):
        columns = rows.T if not len(found) else np.vstack([found, rows.T])
        found = np.asarray(np.linalg.qr(columns, mode="r"))
    # Where nobody moves anything, all are where they began.
    return found.T if len(found) else np.zeros((sum(1 for _ in updates), 1))


def squared_distances(points: Vector64) -> Vector64:
    """Squared Euclidean distances between rows, symmetric."""
    return np.array([np.square(points - point).sum(axis=1) for point in points])


def _mean(updates: Updates, shares: Mapping[int, float]) -> Vector64:
    """The mean of some updates, by their places and shares."""
    chosen = (
        Contribution(one.update, shares[place], one.name, one.scale)
        for place, one in enumerate(updates)
        if shares.get(place)
    )
    return weighted_mean(chosen, updates.size)


@dataclass(frozen=True)
class Krum:
    """The update, or the mean of those, with the smallest distances to its nearest neighbours.

    Attributes:
        share: of the updates that may lie; of `n` with `f` that may, each is judged by its `n - f - 2`
            nearest.
        several: whether the mean of the best `n - f` is taken (Multi-Krum), not the best alone.
    """

    share: float
    several: bool = False

    def __call__(self, updates: Updates) -> Vector64:
        distances = squared_distances(embedded(updates))
        count = len(distances)
        lying = trimmed(self.share, count)
        neighbours = max(1, count - lying - 2)
        scores = np.sort(distances, axis=1)[:, 1 : 1 + neighbours].sum(axis=1)
        best = np.argsort(scores, kind="stable")[: max(1, count - lying) if self.several else 1]
        return _mean(updates, dict.fromkeys(best.tolist(), 1.0))


class GeometricMedian:
    """The point with the smallest sum of distances to all updates. Right while less than half of them lie."""

    def __call__(self, updates: Updates) -> Vector64:
        shares = weiszfeld(embedded(updates))
        return _mean(updates, dict(enumerate(shares.tolist())))


def weiszfeld(points: Vector64) -> Vector64:
    """The geometric median of points, rows, as shares of them that add up to 1."""
    # Begun between the honest: from the mean, points beyond all measure would take long to let go of.
    center = np.median(points, axis=0)
    shares = np.full(len(points), 1 / len(points))
    for _ in range(_STEPS):
        away = np.linalg.norm(points - center, axis=1)
        usual = float(np.median(away))
        # A point under the median would have infinite weight; how little is too little, the others say.
        pulls = 1 / np.maximum(away, max(_SMOOTHING * usual, _NOTHING))
        shares = pulls / pulls.sum()
        before, center = center, shares @ points
        if float(np.linalg.norm(center - before)) <= _CLOSE * usual:
            break
    return np.asarray(shares)
