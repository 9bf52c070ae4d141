# SPDX-License-Identifier: Apache-2.0
"""What noise promises: (epsilon, delta) of rounds that draw devices at random and add Gaussian noise.

Two federations are neighbours where one has one device more than the other, with all its examples and in all
its rounds. The accounting is dp-accounting's, by privacy loss distributions (Koskela et al., 2020; Doroshenko
et al., 2022), which bounds epsilon from above.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edgefl.errors import MissingDependency, OptionError

MOST_NOISE = 1e4
LEAST_NOISE = 0.05
"""Multipliers between which noise is looked for."""
_STRIDE = 1.5
_CLOSE = 2e-5


@dataclass(frozen=True)
class Release:
    """What one round gave away.

    Attributes:
        noise_multiplier: standard deviation of the noise over the most one device can move the sum.
        sampling_rate: chance of each device to take part, in (0, 1].
    """

    noise_multiplier: float
    sampling_rate: float

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)):
            raise OptionError(
                "noise is above 0, for without it there is no epsilon",
                {"noise_multiplier": self.noise_multiplier},
            )
        if not 0 < self.sampling_rate <= 1:
            raise OptionError(
                "a chance to take part is above 0 and at most 1", {"sampling_rate": self.sampling_rate}
            )


def epsilon(*, noise_multiplier: float, sampling_rate: float, rounds: int, delta: float) -> float:
    """Epsilon after so many rounds.

    Args:
        noise_multiplier: standard deviation of the noise over the most one device can move the sum.
        sampling_rate: chance of each device to take part in a round, independent of all others (Poisson).
        rounds: how many, 0 or more.
        delta: what epsilon may fail to hold for, in (0, 1); less than one over the number of devices.

    Raises:
        OptionError: a value outside what is allowed.
        MissingDependency: dp-accounting is not installed.
    """
    if rounds < 0:
        raise OptionError("rounds are 0 or more", {"rounds": rounds})
    return spent([Release(noise_multiplier, sampling_rate)] * rounds, delta)


def spent(releases: Iterable[Release], delta: float) -> float:
    """Epsilon of rounds that need not be alike; 0 of none. Raises as `epsilon` does."""
    _check_delta(delta)
    counts = Counter(releases)
    if not counts:
        return 0.0
    accountant = _accountant()
    for release, count in counts.items():
        accountant.compose(_event(release.noise_multiplier, release.sampling_rate), count)
    return float(accountant.get_epsilon(delta))


def noise_multiplier(*, epsilon: float, sampling_rate: float, rounds: int, delta: float) -> float:
    """The least noise that keeps epsilon over so many rounds, to four digits and never too little.

    Args:
        epsilon: above 0. The others are as for `edgefl.privacy.epsilon`.

    Raises:
        OptionError: a value outside what is allowed, or epsilon asks for noise beyond reason, little or much.
        MissingDependency: dp-accounting is not installed.
    """
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise OptionError("epsilon is above 0 and finite", {"epsilon": epsilon})
    if rounds < 1:
        raise OptionError("rounds are 1 or more", {"rounds": rounds})
    _check_delta(delta)

    low, high = _bracket(epsilon, sampling_rate, rounds, delta)
    from scipy.optimize import brentq

    noise = math.exp(
        brentq(
            lambda size: _excess(math.exp(size), sampling_rate, rounds, delta, epsilon),
            math.log(low),
            math.log(high),
            xtol=_CLOSE,
        )
    )
    while _excess(noise, sampling_rate, rounds, delta, epsilon) > 0:
        noise *= 1 + _CLOSE
    return noise


def _bracket(epsilon: float, rate: float, rounds: int, delta: float) -> tuple[float, float]:
    """Too little noise and enough of it."""
    # What little noise means for many small losses: a good place to begin, whatever it is.
    noise = max(1.0, rate * math.sqrt(2 * rounds * math.log(1 / delta)) / epsilon)
    enough = _excess(noise, rate, rounds, delta, epsilon) <= 0
    while LEAST_NOISE <= noise <= MOST_NOISE:
        other = noise / _STRIDE if enough else noise * _STRIDE
        if enough != (_excess(other, rate, rounds, delta, epsilon) <= 0):
            return min(noise, other), max(noise, other)
        noise = other
    raise OptionError(
        f"the noise that keeps epsilon is not between {LEAST_NOISE:g} and {MOST_NOISE:g} times what one "
        "device can do",
        {"epsilon": epsilon, "sampling_rate": rate, "rounds": rounds, "delta": delta},
    )


def _excess(noise: float, rate: float, rounds: int, delta: float, epsilon: float) -> float:
    return math.log(max(spent([Release(noise, rate)] * rounds, delta), 1e-12) / epsilon)


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise OptionError("delta is above 0 and below 1", {"delta": delta})


def _library() -> Any:
    try:
        import dp_accounting
    except ImportError as exc:
        raise MissingDependency("dp-accounting", "privacy", "privacy accounting") from exc
    return dp_accounting


def _accountant() -> Any:
    library = _library()
    from dp_accounting.pld import PLDAccountant

    return PLDAccountant(library.NeighboringRelation.ADD_OR_REMOVE_ONE)


def _event(noise: float, rate: float) -> Any:
    library = _library()
    gaussian = library.GaussianDpEvent(noise)
    return gaussian if rate == 1 else library.PoissonSampledDpEvent(rate, gaussian)
