# SPDX-License-Identifier: Apache-2.0
"""The server's part of FedDyn (Acar et al., 2021, arXiv:2111.04263, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgefl.server_stub.aggregators.base import Outcome, State, Updates
from edgefl.server_stub.aggregators.bounds import Bound
from edgefl.server_stub.aggregators.mean import weighted_mean


@dataclass(frozen=True)
class FedDyn:
    """`h -= alpha * sum(updates) / population`, `step = mean(updates) - h / alpha`; see `Aggregator`.

    Every update counts alike, as in the paper: devices' own directions add up to `h` only so.

    Attributes:
        population: devices there are, 0 for those of the round.
        bound: on the updates' lengths, None for any.
    """

    alpha: float
    population: int = 0
    bound: Bound | None = None

    def init(self, size: int) -> State:
        return {"h": np.zeros(size, np.float32)}

    def __call__(self, updates: Updates, state: State) -> Outcome:
        counted, verdicts = self.bound(updates) if self.bound else (updates, {})
        count = sum(1 for _ in counted)
        mean = weighted_mean((replace(one, weight=1.0) for one in counted), updates.size)
        share = count / (self.population or count)
        # Kept in float32, the precision it is stored in, so that a restart changes nothing.
        h = (state["h"].astype(np.float64) - self.alpha * share * mean).astype(np.float32)
        return Outcome(mean - h.astype(np.float64) / self.alpha, {"h": h}, verdicts)
