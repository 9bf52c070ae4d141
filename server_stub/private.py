# SPDX-License-Identifier: Apache-2.0
"""Rounds whose models tell little about any device: who takes part, how much noise, what it adds up to.

Every device that checks in during a round's window is drawn with the same chance, independently of all others
(Poisson sampling); whoever is not drawn has no place, however few come. The draw is the operating system's,
since one that could be foreseen would hide nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edgefl.errors import OptionError
from edgefl.options import PrivacyOptions
from edgefl.privacy.accounting import Release, noise_multiplier, spent
from edgefl.privacy.entropy import SYSTEM, Entropy
from edgefl.server_stub.rounds import Round
from edgefl.server_stub.selection import Candidate
from edgefl.server_stub.terms import Draw

WINDOW_S = 10.0
"""Seconds in which devices check in before they are drawn, where nothing else is asked for."""


@dataclass(frozen=True)
class Poisson:
    """How the rounds of one server are drawn.

    Attributes:
        goal: devices to be expected in a round.
        devices: how many there must be to draw from; with fewer the round waits.
        noise: see `Draw`.
        entropy: what decides.
    """

    goal: int
    devices: int
    noise: float
    entropy: Entropy = SYSTEM

    def drawn(self, state: Round, candidates: Sequence[Candidate]) -> tuple[Round, tuple[str, ...]]:
        """A round that is for those who are drawn, and their names; nobody changes nothing."""
        if len(candidates) < self.devices or state.terms is None:
            return state, ()
        draw = Draw(self.noise, chance(self.goal, len(candidates)), len(candidates))
        names = tuple(sorted(c.device for c in candidates if self._coin(draw.rate)))
        if not names:
            return state, ()
        count = len(names)
        plan = replace(state.plan, goal=count, minimum=min(state.plan.minimum, count), places=count)
        return replace(state, plan=plan, terms=replace(state.terms, draw=draw)), names

    def _coin(self, rate: float) -> bool:
        return int.from_bytes(self.entropy(8), "little") < rate * 2.0**64


def chance(goal: int, devices: int) -> float:
    """Chance with which a goal is to be expected, rounded up to three digits: few different ones are quickly
    added up."""
    if goal >= devices:
        return 1.0
    exact = goal / devices
    digits = 10.0 ** (math.floor(math.log10(exact)) - 2)
    return min(1.0, math.ceil(exact / digits - 1e-9) * digits)


def total(draws: Iterable[Draw], delta: float) -> float:
    """Epsilon of rounds; infinity where so few devices were drawn that delta is spent on empty draws."""
    made = list(draws)
    left = delta - sum(draw.empty for draw in made)
    return spent((Release(d.noise, d.rate) for d in made), left) if left > 0 else math.inf


def calibrated(options: PrivacyOptions, goal: int, rounds: int) -> float:
    """The noise that options ask for, over so many rounds.

    Raises:
        OptionError: it follows from epsilon, and the number of devices is not told, or they are too few.
        MissingDependency: dp-accounting is not installed.
    """
    if options.privacy_noise is not None:
        return options.privacy_noise
    assert options.privacy_epsilon is not None  # one of them is given
    devices = options.privacy_devices
    if devices is None:
        raise OptionError(
            "how well a device hides among others follows from how many there are; give their number",
            {"privacy_devices": None},
        )
    planned = Draw(1.0, chance(goal, devices), devices)
    left = options.privacy_delta - rounds * planned.empty
    if left <= 0:
        raise OptionError(
            f"a round that expects {goal} of {devices} devices finds none with a chance of "
            f"{planned.empty:.2g}, which is too much for so small a delta; draw more",
            {"goal": goal, "privacy_devices": devices, "privacy_delta": options.privacy_delta},
        )
    return noise_multiplier(
        epsilon=options.privacy_epsilon, sampling_rate=planned.rate, rounds=max(rounds, 1), delta=left
    )


def affordable(draws: Sequence[Draw], planned: Draw, rounds: int, options: PrivacyOptions) -> bool:
    """Whether another round keeps epsilon within what was promised."""
    if options.privacy_epsilon is None:
        return True
    as_planned = all(d.noise >= planned.noise and d.rate <= planned.rate for d in draws)
    if options.privacy_noise is None and as_planned and len(draws) < rounds:
        # The noise was chosen for so many rounds.
        return True
    return total([*draws, planned], options.privacy_delta) <= options.privacy_epsilon
