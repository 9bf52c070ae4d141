# SPDX-License-Identifier: Apache-2.0
"""How the demo trains: one budget for the federation and for its yardstick."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgefl.cli.simulation import Plan
from edgefl.wire import Training

PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10))
"""Held-out people: everyone once. The first pair is the one shown live over HTTP."""

BATCH = 16


@dataclass(frozen=True)
class Recipe:
    """One budget of example passes, spent by many devices or by one machine.

    Attributes:
        rounds: of the federation; the central yardstick makes as many passes over all examples.
        training: of each device in each round.
        server_lr, server_momentum: of the server.
        central_lr, central_momentum: of the yardstick.
    """

    rounds: int = 30
    training: Training = field(default_factory=lambda: Training(epochs=1, lr=0.06, momentum=0.9))
    server_lr: float = 2.0
    server_momentum: float = 0.0
    central_lr: float = 0.01
    central_momentum: float = 0.9

    def with_rounds(self, rounds: int | None) -> Recipe:
        return self if rounds is None else replace(self, rounds=rounds)

    def plan(self, seed: int) -> Plan:
        """The same federation for the simulator."""
        training = replace(self.training, seed=seed)
        return Plan(self.rounds, training, None, self.server_lr, self.server_momentum, seed)
