# SPDX-License-Identifier: Apache-2.0
"""The server's part of SCAFFOLD (Karimireddy et al., 2020, arXiv:1910.06378, algorithm 1, option II).

Devices send no change of their control variates: by option II it is `-c - update / (steps * lr)`, and all of
that is here. What a device trained beside is `c` as it was published, so that is what counts.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

import numpy as np

from edgefl.parameters import Vector
from edgefl.server_stub.aggregators.base import Outcome, State, Updates
from edgefl.server_stub.aggregators.bounds import Bound
from edgefl.server_stub.aggregators.mean import MOST_STEPS, told_steps, weighted_mean

CONTROL = "c"
_HALF = float(np.finfo(np.float16).max)


def published(control: Vector) -> Vector:
    """A control variate as devices get it: every value is one of float16."""
    return np.clip(control, -_HALF, _HALF).astype(np.float16).astype(np.float32)


@dataclass(frozen=True)
class Scaffold:
    """`step = server_lr * mean(updates)`, `c += share * mean(-c - update / (steps * lr))`; see `Aggregator`.

    Every update counts alike, as in the paper: `c` is the mean of the devices' only so.

    Attributes:
        lr: of the devices' steps.
        population: devices there are, 0 for those of the round.
        bound: on the updates' lengths, None for any.
    """

    lr: float
    server_lr: float = 1.0
    population: int = 0
    bound: Bound | None = None

    def init(self, size: int) -> State:
        return {CONTROL: np.zeros(size, np.float32)}

    def __call__(self, updates: Updates, state: State) -> Outcome:
        counted, verdicts = self.bound(updates) if self.bound else (updates, {})
        told = [told_steps(one.update) or 1 for one in counted]
        # Nobody can verify them, and few steps make much of an update.
        fewest = statistics.median(told or [1]) / MOST_STEPS
        mean = weighted_mean((replace(one, weight=1.0) for one in counted), updates.size)
        slopes = (
            replace(one, weight=1.0, scale=one.scale / (self.lr * max(steps, fewest)))
            for one, steps in zip(counted, told, strict=True)
        )
        control, sent = (np.asarray(v, np.float64) for v in (state[CONTROL], published(state[CONTROL])))
        share = len(told) / (self.population or len(told))
        # Kept in float32, the precision it is stored in, so that a restart changes nothing.
        moved = control - share * (sent + weighted_mean(slopes, updates.size))
        return Outcome(self.server_lr * mean, {CONTROL: moved.astype(np.float32)}, verdicts)
