# SPDX-License-Identifier: Apache-2.0
"""Many updates into one step, behind one seam: `(updates, state) -> (step, state)`, see `base.Aggregator`."""

from __future__ import annotations

from edgefl.server_stub.aggregators.asked import aggregator
from edgefl.server_stub.aggregators.base import Aggregator, Contribution, Outcome, State, Updates, Verdict
from edgefl.server_stub.aggregators.updates import Gathered, discount

__all__ = [
    "Aggregator",
    "Contribution",
    "Gathered",
    "Outcome",
    "State",
    "Updates",
    "Verdict",
    "aggregator",
    "discount",
]
