# SPDX-License-Identifier: Apache-2.0
"""A mean that is differentially private for every device (DP-FedAvg, McMahan et al., 2018, arXiv:1710.06963).

Every update is shortened to the clipping norm and all count alike; the sum gets Gaussian noise and is divided
by the number of devices that was to be expected, not by how many there were. The clipping norm follows a
quantile of the updates' lengths, which is counted with noise as well (Andrew et al., 2021, arXiv:1905.03871).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgefl.errors import OptionError
from edgefl.privacy.entropy import Entropy
from edgefl.privacy.gaussian import SIGMA, Whole, gaussian
from edgefl.server_stub.aggregators.base import Array, Contribution, Outcome, State, Updates, Vector64
from edgefl.server_stub.aggregators.optimizers import ServerOptimizer

CLIP = "clip"
"""The clipping norm in an aggregator's state."""

_RATE = 0.2
_COUNT_SHARE = 20
_SMALLEST_CLIP = 2.0**-60
_LARGEST_CLIP = 2.0**60


@dataclass(frozen=True)
class PrivateMean:
    """See `Aggregator`. Called without updates it gives noise all the same.

    Attributes:
        noise: standard deviation over the most one device can do, of everything a round gives away.
        expected: devices per round that are to be expected.
        clip: the first clipping norm.
        quantile: part of the updates that should be shorter than the clipping norm; None leaves it as it is.
        optimizer: makes a step of the mean.
        entropy: where noise comes from.
    """

    noise: float
    expected: float
    clip: float
    quantile: float | None
    optimizer: ServerOptimizer
    entropy: Entropy

    def init(self, size: int) -> State:
        return {CLIP: np.array([self.clip], np.float32), **self.optimizer.init(size)}

    def __call__(self, updates: Updates, state: State) -> Outcome:
        clip = float(state[CLIP][0])
        total, longer, count = np.zeros(updates.size, np.int64), 0, 0
        unit = self.sum_noise * clip / SIGMA
        for one in updates:
            total[one.update.indices] += shortened(one, clip, unit)
            longer += one.update.norm > clip
            count += 1
        mean = (total + gaussian(updates.size, self.entropy)) * (unit / self.expected)
        after = {name: value for name, value in state.items() if name != CLIP}
        step, after = self._step(mean, after)
        return Outcome(step, {CLIP: self._next_clip(clip, count - longer, longer), **after})

    @property
    def count_noise(self) -> float:
        """Standard deviation of the noise of the count, whose terms are 1/2 or -1/2."""
        return max(self.expected / _COUNT_SHARE, self.noise)

    @property
    def sum_noise(self) -> float:
        """What the sum needs so that sum and count together are as private as `noise` says."""
        if self.quantile is None:
            return self.noise
        return float((self.noise**-2 - (2 * self.count_noise) ** -2) ** -0.5)

    def _step(self, mean: Vector64, state: State) -> tuple[Vector64, dict[str, Array]]:
        step, after = self.optimizer.apply(mean, state)
        return step, dict(after)

    def _next_clip(self, clip: float, shorter: int, longer: int) -> Array:
        if self.quantile is None:
            return np.array([clip], np.float32)
        noise = float(gaussian(1, self.entropy)[0]) / SIGMA * self.count_noise
        part = ((shorter - longer) / 2 + noise) / self.expected + 0.5
        moved = clip * math.exp(-_RATE * (part - self.quantile))
        return np.array([min(max(moved, _SMALLEST_CLIP), _LARGEST_CLIP)], np.float32)


def shortened(one: Contribution, clip: float, unit: float) -> Whole:
    """An update in whole multiples of a unit, no longer than the clipping norm: exactly, not almost.

    Raises:
        OptionError: the unit is so fine that the numbers would be too large.
    """
    most = (clip / unit) ** 2
    if not most < 2.0**62:
        raise OptionError("so little noise has no use; it is at least 0.01", {"noise": unit * SIGMA / clip})
    norm = one.update.norm
    scale = min(1.0, clip / norm) / unit if norm else 0.0
    while True:
        # Towards zero, so that rounding lengthens nothing.
        whole: Whole = np.trunc(one.update.values.astype(np.float64) * scale).astype(np.int64)
        if int(whole @ whole) <= most:
            return whole
        scale *= 1 - 2.0**-40
