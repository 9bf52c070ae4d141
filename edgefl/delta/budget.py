# SPDX-License-Identifier: Apache-2.0
"""How much to send: density over rounds, and as much as fits a number of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgefl.errors import DeltaOption

T = TypeVar("T")

_ATTEMPTS = 12
_CLOSE_ENOUGH = 0.98
_FRAMING = 60
_FIRST_GUESS_BITS = 9


def warm_up(round_number: int, rounds: int, final: float, first: float = 0.25) -> float:
    """Density of a round: from `first` in round 0 down to `final` from round `rounds` on, by equal factors.

    Sending more in the beginning keeps error feedback from delaying the large early steps (Lin et al. 2018).
    """
    if not (0 < final <= first <= 1) or rounds < 0 or round_number < 0:
        raise DeltaOption(
            f"warm-up from {first} to {final} in round {round_number} of {rounds}, "
            "needed are 0 < final <= first <= 1 and numbers from 0 up"
        )
    if round_number >= rounds:
        return final
    return float(first * (final / first) ** (round_number / rounds))


def fit(attempt: Callable[[int], T], length: Callable[[T], int], size: int, budget: int) -> T:
    """The attempt with the largest count found whose length is within the budget.

    Args:
        attempt: makes something of a count between 1 and `size`.
        length: its length in bytes, which grows with the count.
        budget: in bytes; it stops looking from 98 % of it up.

    Raises:
        DeltaOption: not even a count of 1 fits.
    """
    low, high, best = 0, max(size, 1) + 1, None
    count = _guess(budget, _FIRST_GUESS_BITS, low, high)
    for _ in range(_ATTEMPTS):
        made = attempt(count)
        used = length(made)
        if used > budget:
            high = count
        else:
            low, best = count, made
            if used >= _CLOSE_ENOUGH * budget:
                break
        if high - low < 2:
            break
        bits = 8 * max(used - _FRAMING, 1) / count
        count = _guess(budget, bits, low, high)
    if best is None:
        best = attempt(1)
        if length(best) > budget:
            raise DeltaOption(f"a payload of {budget} bytes, the smallest possible has {length(best)}")
    return best


def _guess(budget: int, bits: float, low: int, high: int) -> int:
    """A count strictly between the bounds, by bits per value and kept away from the edges."""
    guess = int(0.99 * 8 * max(budget - _FRAMING, 1) / bits)
    margin = (high - low) // 16
    return min(max(guess, low + 1 + margin), high - 1 - margin) if high - low > 2 else low + 1
