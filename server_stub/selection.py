# SPDX-License-Identifier: Apache-2.0
"""Who gets the places of a round, of those who checked in while it was being drawn. Pure functions.

Without a window the first to come are the first to be served, which favours fast and near devices. With one,
places are drawn among all who check in until it ends; a draw follows from its seed and who is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgefl.server_stub.aggregators.base import Vector64

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Candidate:
    """A device that checked in.

    Attributes:
        device: its name.
        examples: how many it says it has, at most what an update may count for.
        served: when it was last given a place, seconds since the epoch; None if never.
        labels: what it says of itself, see `labels_of`.
    """

    device: str
    examples: int
    served: float | None = None
    labels: Labels = field(default_factory=dict)


class Selection(Protocol):
    """Chooses devices."""

    def __call__(self, candidates: Sequence[Candidate], count: int, seed: Sequence[int]) -> tuple[str, ...]:
        """Names of at most `count` different candidates; their order makes no difference."""
        ...


def uniform(candidates: Sequence[Candidate], count: int, seed: Sequence[int]) -> tuple[str, ...]:
    """All with the same chance."""
    return _drawn(candidates, np.ones(len(candidates)), count, seed)


def by_examples(candidates: Sequence[Candidate], count: int, seed: Sequence[int]) -> tuple[str, ...]:
    """One after the other, with chances as the numbers of their examples."""
    ordered = _ordered(candidates)
    return _drawn(ordered, np.array([c.examples for c in ordered], np.float64), count, seed)


def longest_waiting(candidates: Sequence[Candidate], count: int, seed: Sequence[int]) -> tuple[str, ...]:
    """Those given a place the longest time ago, the never served first; chance decides between equals."""
    shuffled = _drawn(candidates, np.ones(len(candidates)), len(candidates), seed)
    served = {c.device: -np.inf if c.served is None else c.served for c in candidates}
    return tuple(sorted(shuffled, key=lambda device: served[device]))[:count]


SELECTIONS: Mapping[str, Selection] = {
    "uniform": uniform,
    "examples": by_examples,
    "waiting": longest_waiting,
}


def labels_of(engine: str, labels: str) -> Labels:
    """What a device says of itself by name: `target` from its engine, then `app=1.4,beta=yes`."""
    return {"target": engine.partition(" ")[0], **pairs(labels)}


def pairs(labels: str) -> Labels:
    """`app=1.4,beta=yes` by name."""
    return dict(pair.split("=", 1) for pair in labels.split(",") if pair)


def wanted(labels: Labels, asked: Labels) -> bool:
    """Whether a device has all labels that are asked for."""
    return all(labels.get(name) == value for name, value in asked.items())


def _ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda candidate: candidate.device)


def _drawn(
    candidates: Sequence[Candidate], weights: Vector64, count: int, seed: Sequence[int]
) -> tuple[str, ...]:
    """Names drawn without putting back, in the order drawn (Efraimidis and Spirakis, 2006).

    Args:
        weights: over 0, in the order of the candidates' names.
    """
    names = [candidate.device for candidate in _ordered(candidates)]
    keys = np.random.default_rng(list(seed)).exponential(size=len(names)) / weights
    return tuple(names[i] for i in np.argsort(keys, kind="stable")[:count])
