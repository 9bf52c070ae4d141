# SPDX-License-Identifier: Apache-2.0
"""How the demo trains: one budget for the federation and for its yardstick."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgefl.simulation import Plan
from edgefl.wire import Training

PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10))
"""Held-out people: everyone once. The first pair is the one shown live over HTTP."""

BATCH = 16


@dataclass(frozen=True)
class Recipe:
    """One budget of steps, spent by many devices or by one machine.

    Short rounds keep the devices' models from drifting apart, and few devices in each leave the noise that
    lets a model generalise: whichever devices have waited longest take part, as idle watches would.

    Attributes:
        rounds: of the federation.
        cohort: devices in each round.
        training: of each device in each round.
        server_lr, server_momentum: of the server.
        central_lr, central_momentum: of the yardstick.
    """

    rounds: int = 320
    cohort: int = 4
    training: Training = field(
        default_factory=lambda: Training.of(lr=0.1, momentum=0.9, steps=4, density=0.02)
    )
    server_lr: float = 1.0
    server_momentum: float = 0.0
    central_lr: float = 0.04
    central_momentum: float = 0.9

    def with_rounds(self, rounds: int | None) -> Recipe:
        return self if rounds is None else replace(self, rounds=rounds)

    @property
    def averaged(self) -> int:
        """The final model is the mean of the last tenth of the rounds' models (Polyak and Juditsky 1992)."""
        return max(1, self.rounds // 10)

    @property
    def steps(self) -> int:
        """Steps of all devices in all rounds: the budget of the yardstick too."""
        return self.rounds * self.training.fit.steps * self.cohort

    def plan(self, seed: int) -> Plan:
        """The same federation for the simulator."""
        training = replace(self.training, fit=replace(self.training.fit, seed=seed))
        return Plan(
            rounds=self.rounds,
            training=training,
            cohort=self.cohort,
            server_lr=self.server_lr,
            server_momentum=self.server_momentum,
            seed=seed,
        )
