# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: nobody is drawn again before everybody has been."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np


class Turns:
    """Draws devices, waiting in a queue that is shuffled from a seed."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._names, self._seed, self._rng = names, seed, np.random.default_rng(seed)
        self._queue: list[str] = []

    def cohort(self, count: int) -> list[str]:
        """The next ones, in order of their names."""
        drawn: list[str] = []
        while len(drawn) < count:
            name = self.another(drawn)
            assert name is not None  # no more are drawn than there are
            drawn.append(name)
        return sorted(drawn)

    def another(self, besides: Collection[str]) -> str | None:
        """The next one that is none of some; None where there is no other."""
        if all(name in besides for name in self._queue):
            self._refill()
        found = next((name for name in self._queue if name not in besides), None)
        if found is not None:
            self._queue.remove(found)
        return found

    def jury(self, version: int) -> list[str]:
        """Everyone, in the order in which they are asked to measure a version; it costs nobody a turn."""
        order = np.random.default_rng([self._seed, 3, version]).permutation(len(self._names))
        return [self._names[i] for i in order]

    def _refill(self) -> None:
        """Everybody once more, those who still wait for their last turn behind the others."""
        waiting = set(self._queue)
        shuffled = [self._names[i] for i in self._rng.permutation(len(self._names))]
        self._queue += sorted(shuffled, key=lambda name: name in waiting)
