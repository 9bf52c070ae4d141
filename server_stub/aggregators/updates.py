# SPDX-License-Identifier: Apache-2.0
"""Updates that rules can go through more than once, and the same with some of them changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from edgefl.server_stub.aggregators.base import Contribution, Updates

KEPT_BYTES = 256 << 20
"""Decoded updates kept in memory between two passes; a round of more is decoded once per pass."""


def discount(behind: int) -> float:
    """What an update so many versions behind is multiplied by, see FedBuff (Nguyen et al., 2022)."""
    return 1.0 if behind <= 0 else 1 / math.sqrt(1 + behind)


class Gathered:
    """Updates made one after the other, kept for the next pass as far as memory allows."""

    def __init__(
        self, size: int, make: Callable[[], Iterator[Contribution]], kept_bytes: int = KEPT_BYTES
    ) -> None:
        """
        Args:
            make: goes through them from the first on.
        """
        self.size, self._make, self._room = size, make, kept_bytes
        self._kept: list[Contribution] | None = None

    def __iter__(self) -> Iterator[Contribution]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Contribution] | None = []
        left = self._room
        for one in self._make():
            left -= one.update.indices.nbytes + one.update.values.nbytes
            if kept is not None and left >= 0:
                kept.append(one)
            else:
                kept, self._room = None, 0
            yield one
        self._kept = kept


@dataclass(frozen=True)
class Scaled:
    """The same updates, multiplied by a factor each; those without one are left out.

    Attributes:
        factors: by name.
    """

    updates: Updates
    factors: Mapping[str, float]

    @property
    def size(self) -> int:
        return self.updates.size

    def __iter__(self) -> Iterator[Contribution]:
        for one in self.updates:
            factor = self.factors.get(one.name)
            if factor == 1.0:
                yield one
            elif factor is not None:
                yield replace(one, scale=one.scale * factor)
