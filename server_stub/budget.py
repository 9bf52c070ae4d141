# SPDX-License-Identifier: Apache-2.0
"""What the rounds of a database have told of any one device, and whether there may be another."""

from __future__ import annotations

from edgefl.errors import OptionError
from edgefl.server_stub.private import Poisson, affordable, chance, total
from edgefl.server_stub.rounds import Round
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.storage import Storage
from edgefl.server_stub.terms import Draw
from edgefl.wire import MOST_EPSILON


class Budget:
    """The privacy of one federation, from its first round to its last."""

    def __init__(self, store: Storage, poisson: Poisson | None, settings: Settings) -> None:
        """
        Args:
            poisson: how rounds are drawn; None where they are not private.
        """
        self._store, self._poisson, self._settings = store, poisson, settings
        self._known: tuple[int, float] = (0, 0.0)

    def check(self, current: Round | None) -> None:
        """Refuse to mix private rounds with others: neither would be what it is said to be.

        Raises:
            OptionError: the database has rounds of the other kind.
        """
        private = self._poisson is not None
        drawn = [terms.private for terms in self._store.closed_terms()]
        if current is not None and current.places and current.terms is not None:
            drawn.append(current.terms.private)
        if not all(known == private for known in drawn):
            raise OptionError(
                "rounds of this database are private and others would not be; begin with another database"
                if any(drawn)
                else "rounds of this database were not private, and what they told stays told; begin with "
                "another database",
                {"privacy": self._settings.privacy},
            )

    def affordable(self, closing: Round | None = None) -> bool:
        """Whether one more round keeps what is promised, after one that is being closed."""
        if self._poisson is None:
            return True
        rate = chance(self._poisson.goal, self._poisson.devices)
        planned = Draw(self._poisson.noise, rate, self._poisson.devices)
        last = None if closing is None else draw_of(closing)
        draws = [*self._draws(), *([] if last is None else [last])]
        return affordable(draws, planned, self._settings.rounds, self._settings)

    def epsilon(self) -> float | None:
        """Of all versions so far, None where they are not private."""
        if self._poisson is None:
            return None
        draws = self._draws()
        if self._known[0] != len(draws):
            self._known = len(draws), min(total(draws, self._settings.privacy_delta), MOST_EPSILON)
        return self._known[1]

    def _draws(self) -> list[Draw]:
        return [terms.draw for terms in self._store.closed_terms() if terms.draw is not None]


def draw_of(state: Round) -> Draw | None:
    """How a round was drawn."""
    return None if state.terms is None else state.terms.draw
