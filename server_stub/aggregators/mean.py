# SPDX-License-Identifier: Apache-2.0
"""Weighted means, one pass over the updates.

FedAvg is McMahan et al., 2017 (arXiv:1602.05629); FedNova is Wang et al., 2020 (arXiv:2007.07481).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable

import numpy as np

from edgefl.delta import SparseDelta
from edgefl.errors import DataError
from edgefl.server_stub.aggregators.base import Contribution, Updates, Vector64
from edgefl.server_stub.aggregators.updates import Scaled

MOST_STEPS = 10.0
"""Local steps told beyond this multiple of the round's median count as no more: nobody can verify them."""


def weighted_mean(updates: Iterable[Contribution], size: int) -> Vector64:
    """Mean of sparse updates, shape `(size,)`, added in the order given.

    Raises:
        DataError: no update, or a weight that is not positive and finite.
    """
    total = 0.0
    mean = np.zeros(size, np.float64)
    for one in updates:
        weight = checked(one.weight)
        # Indices within one update are distinct, so this adds each of them.
        mean[one.update.indices] += weight * one.values()
        total += weight
    if total == 0.0:
        raise DataError("there are no updates to aggregate")
    mean /= total
    return mean


def checked(weight: float) -> float:
    """A weight that is positive and finite; DataError where it is not."""
    if not (weight > 0 and np.isfinite(weight)):
        raise DataError(f"an update has weight {weight}, allowed are positive finite weights")
    return weight


class Mean:
    """FedAvg: every update counts by its weight."""

    def __call__(self, updates: Updates) -> Vector64:
        return weighted_mean(updates, updates.size)


def normalized(updates: Updates, momentum: float = 0.0) -> Updates:
    """FedNova: updates as if all had made the same number of local steps, the mean of those made.

    Without it, devices that make more steps pull the model towards their own optimum. An update that does not
    tell its steps counts as one of the median.

    Args:
        momentum: of the devices' SGD.
    """
    told = {one.name: (told_steps(one.update), checked(one.weight)) for one in updates}
    known = [steps for steps, _ in told.values() if steps is not None]
    median = float(statistics.median(known)) if known else 1.0
    effort = {
        name: reach(min(steps or median, MOST_STEPS * median), momentum) for name, (steps, _) in told.items()
    }
    total = sum(weight for _, weight in told.values())
    mean = sum(weight * effort[name] for name, (_, weight) in told.items()) / (total or 1.0)
    return Scaled(updates, {name: mean / each for name, each in effort.items()})


def reach(steps: float, momentum: float) -> float:
    """Sum of the factors with which the gradients of SGD's steps enter an update, over the learning rate."""
    if not momentum:
        return steps
    return float((steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum))


def told_steps(update: SparseDelta) -> int | None:
    """Local steps a device put in the frame's metadata, None where it tells no such number."""
    steps = update.meta.get("steps")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps < 2**31:
        return None
    return steps
