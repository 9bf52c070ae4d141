# SPDX-License-Identifier: Apache-2.0
"""When a server draws the places of a round, and among whom."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgefl.server_stub.private import Poisson
from edgefl.server_stub.rounds import Assign, Round, apply
from edgefl.server_stub.selection import SELECTIONS, Candidate, Labels, wanted


@dataclass(frozen=True)
class Drawing:
    """How the rounds of one server are drawn.

    Attributes:
        window: seconds from the opening of a round, or an extension that found it empty, to the draw; 0 where
            the first to come are served.
        selection: the name of the rule.
        only: labels a device needs.
        seed: of all draws.
        max_examples: most examples an update counts for.
        poisson: draws instead, where rounds are private.
    """

    window: float
    selection: str
    only: Labels
    seed: int
    max_examples: int
    poisson: Poisson | None = None

    def moment(self, state: Round) -> float | None:
        """When the places of a round are drawn; None where they were, or go to who comes first."""
        waiting = self.window and not state.places and not state.full
        return state.stretch_start + self.window if waiting else None

    def due(self, state: Round, at: float) -> bool:
        """Whether it is time to draw."""
        moment = self.moment(state)
        return moment is not None and at >= moment

    def drawn(self, state: Round, candidates: Sequence[Candidate], at: float) -> Round:
        """The round with places for some of those who checked in while the window was open."""
        fair = [
            replace(c, examples=self.weight(c.examples)) for c in candidates if wanted(c.labels, self.only)
        ]
        if self.poisson is not None:
            state, names = self.poisson.drawn(state, fair)
        else:
            seed = [self.seed, state.number, state.extensions]
            names = SELECTIONS[self.selection](fair, state.plan.places, seed)
        for device in sorted(names):
            state = apply(Assign(device, secrets.token_hex(16), at), state)
        return state

    def weight(self, examples: int) -> int:
        """What an update counts for of a device that says how many examples it has."""
        return min(examples, self.max_examples)
