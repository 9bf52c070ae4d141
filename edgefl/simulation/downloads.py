# SPDX-License-Identifier: Apache-2.0
"""What devices fetch. Those that hold the same take the same way, so it is gone once and counted for each;
and all ways to a version lead to the same bits, so they are decoded once."""

from __future__ import annotations

from edgefl.bundle import Bundle
from edgefl.errors import Refused
from edgefl.parameters import Arrays
from edgefl.runtime.held import Position, Start, Ways
from edgefl.server_stub.downlink import CHAIN
from edgefl.server_stub.values import Traffic
from edgefl.simulation.network import Network


class Downloads:
    """The versions of one model on their way to devices."""

    def __init__(self, bundle: Bundle, network: Network) -> None:
        self._ways, self._network, self._schema = Ways(bundle), network, bundle.schema()
        self._positions = {self.first: self._ways.origin}
        self._version, self._made = -1, dict[int, tuple[Arrays, int, Traffic]]()
        self._there: tuple[Arrays, Position] | None = None

    @property
    def first(self) -> int:
        """The version that comes with the bundle."""
        return self._ways.origin.version

    def fetch(self, held: int, task: Start) -> tuple[Arrays, int]:
        """The shared parameters a task starts from, and the version the device holds then.

        Args:
            held: the version the device holds.
        """
        if task.base_version != self._version:
            self._version, self._made, self._there = task.base_version, {}, None
        if held not in self._made:
            (values, at), traffic = self._network.aside(lambda: self._lead(held, task))
            self._made[held] = values, at.version, traffic
            self._keep(at)
        values, after, traffic = self._made[held]
        self._network.count(traffic)
        return values, after

    def _lead(self, held: int, task: Start) -> tuple[Arrays, Position]:
        # The server leads whoever is further behind from the first version on, whatever was added up since.
        position = self._positions.get(held) or Position(held, self._ways.origin.moved)
        if self._there is not None:
            return self._there[0], self._follow(position, task, self._there[1])
        made = self._ways.lead(self._network.remote, position, task)
        if made[1].version == task.base_version:
            # Steps led there and the fingerprint fits: all others lead to the same bits.
            self._there = made
        return made

    def _follow(self, held: Position, task: Start, there: Position) -> Position:
        """Make the requests of `Ways.lead` where it is known what they bring; what the device holds then."""
        for start in (held.version, self.first):
            try:
                if start != task.base_version:
                    self._network.remote.way(task.base_version, start, self._schema)
                return there
            except Refused:
                continue
        self._network.remote.parameters(task.base_version, self._schema)
        return held

    def _keep(self, at: Position) -> None:
        self._positions[at.version] = at
        for version in [v for v in self._positions if v < self._version - CHAIN and v != self.first]:
            del self._positions[version]
