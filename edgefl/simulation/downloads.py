# SPDX-License-Identifier: Apache-2.0
"""What devices fetch. Those that hold the same take the same way, so it is gone once and counted for each."""

from __future__ import annotations

from edgefl.bundle import Bundle
from edgefl.parameters import Arrays
from edgefl.runtime.held import Position, Start, Ways
from edgefl.server_stub.downlink import CHAIN
from edgefl.server_stub.values import Traffic
from edgefl.simulation.network import Network


class Downloads:
    """The versions of one model on their way to devices."""

    def __init__(self, bundle: Bundle, network: Network) -> None:
        self._ways, self._network = Ways(bundle), network
        self._positions = {self.first: self._ways.origin}
        self._version, self._made = -1, dict[int, tuple[Arrays, int, Traffic]]()

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
            self._version, self._made = task.base_version, {}
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
        return self._ways.lead(self._network.remote, position, task)

    def _keep(self, at: Position) -> None:
        self._positions[at.version] = at
        for version in [v for v in self._positions if v < self._version - CHAIN and v != self.first]:
            del self._positions[version]
