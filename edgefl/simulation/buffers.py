# SPDX-License-Identifier: Apache-2.0
"""Asynchronous rounds in simulated time: devices take as long as they take, and nobody waits for them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from edgefl.simulation.fleet import Begun, Fleet
from edgefl.simulation.network import Network
from edgefl.simulation.turns import Turns
from edgefl.wire import RoundInfo


def durations(names: Sequence[str], spread: float, seed: int) -> dict[str, float]:
    """Seconds each device needs for a round: log-normal around one, all alike without a spread."""
    drawn = np.random.default_rng([seed, 2]).normal(size=len(names))
    return {name: float(np.exp(spread * z)) for name, z in zip(names, drawn, strict=True)}


class Buffers:
    """Runs rounds that take late updates, one buffer after the other."""

    def __init__(self, network: Network, fleet: Fleet, turns: Turns, takes: dict[str, float]) -> None:
        """
        Args:
            takes: see `durations`.
        """
        self._network, self._fleet, self._turns, self._takes = network, fleet, turns, takes
        self._at_work: list[tuple[float, str, Begun]] = []

    def next(self) -> RoundInfo:
        """Let time pass until a buffer is full; its round, still open where no device is at work any more."""
        self._start()
        while self._at_work and self._network.waiting:
            until, name, begun = heapq.heappop(self._at_work)
            self._network.pass_time(until)
            self._fleet.send(name, begun)
            if self._network.waiting:
                self._start()
        return self._network.close_round()

    def _start(self) -> None:
        """Let idle devices ask, in turn, as long as there are places."""
        for name in self._idle():
            if not self._network.places:
                return
            begun = self._fleet.begin(name)
            # Those that had their place in this round already come again in the next.
            if begun is not None and begun.work is not None:
                heapq.heappush(self._at_work, (self._network.now + self._takes[name], name, begun))

    def _idle(self) -> Iterator[str]:
        asked = {name for _, name, _ in self._at_work}
        while (name := self._turns.another(asked)) is not None:
            asked.add(name)
            yield name
