# SPDX-License-Identifier: Apache-2.0
"""How long an update may be, by what the round itself shows.

The yardstick is the median of the lengths of a round's updates: as long as less than half of them lie, it is
an honest one's or between two. Longer updates are shortened to a multiple of it; those beyond all measure
are set aside. Both are named, the rest counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgefl.server_stub.aggregators.base import Updates, Verdict
from edgefl.server_stub.aggregators.updates import Scaled

BEYOND = 2.0
"""An update this many times longer than the bound is set aside."""


@dataclass(frozen=True)
class Bound:
    """A bound on lengths.

    Attributes:
        multiple: of the median length, over 0.
    """

    multiple: float

    def __call__(self, updates: Updates) -> tuple[Updates, Mapping[str, Verdict]]:
        """The updates that count, as long as they may be, and what was done to the others."""
        norms = {one.name: one.norm for one in updates}
        bound = self.multiple * middle([norm for norm in norms.values() if norm > 0])
        verdicts = {
            name: _verdict(norm, bound, self.multiple) for name, norm in norms.items() if norm > bound
        }
        if not verdicts:
            return updates, {}
        factors = {name: bound / norms[name] if name in verdicts else 1.0 for name in norms}
        kept = {n: factor for n, factor in factors.items() if n not in verdicts or verdicts[n].counted}
        return Scaled(updates, kept), verdicts


def most_weight(weights: list[float], multiple: float) -> float:
    """The most one update of a round may weigh: a multiple of the median; 0 of it is infinity."""
    return multiple * middle(weights) if multiple else math.inf


def middle(norms: list[float]) -> float:
    """The lower median: of two updates, the longer one is held to the shorter one. Infinity of none."""
    return sorted(norms)[(len(norms) - 1) // 2] if norms else math.inf


def _verdict(norm: float, bound: float, multiple: float) -> Verdict:
    median = bound / multiple
    said = f"{norm:.3g} long, {norm / median:.3g} times the round's median of {median:.3g}"
    if norm > BEYOND * bound:
        return Verdict(0.0, f"set aside: {said}")
    return Verdict(bound / norm, f"shortened: {said}, counted as {multiple:g} times")
