# SPDX-License-Identifier: Apache-2.0
"""Examples held out of training, for good."""

from __future__ import annotations

from pathlib import Path

from edgefl.data import Examples, Wanted, check_examples
from edgefl.parameters import Arrays
from edgefl.runtime.rows import Rows, sides
from edgefl.runtime.sides import Sides, divided
from edgefl.runtime.store.source import Fixed, Source

_PIECE = 256
"""Examples in memory at once while those that are read batch by batch are told apart."""
_DEVICE = -1
"""The seed by which a device holds examples out of the federation; a person's own model has others."""


class Divided:
    """A source of examples that keeps a part of them out of training. See `Source`."""

    def __init__(self, source: Source, wanted: Wanted, fraction: float) -> None:
        """
        Args:
            wanted, fraction: see `sides.divided`.
        """
        self._source, self._wanted, self._fraction = source, wanted, fraction
        self._kept: Sides | None = None
        self._counted: tuple[tuple[int, int], int] | None = None

    def __len__(self) -> int:
        """How many there are to train on."""
        return len(self._source) - self.held_out

    @property
    def held_out(self) -> int:
        """How many there are of the others."""
        total = len(self._source)
        now = self._source.ever_added(), total
        if self._counted is None or self._counted[0] != now:
            rest, held = self._sides(0) if total else ((), ())
            # A source that is larger than memory gives a part of it.
            drawn = len(rest) + len(held)
            self._counted = now, total * len(held) // drawn if drawn else 0
        return self._counted[1]

    def ever_added(self) -> int:
        return self._source.ever_added()

    def take(self, seed: int) -> Examples:
        return self._sides(seed)[0]

    def stream(self) -> Rows | None:
        rows = self._source.stream()
        if rows is None:
            return None
        return sides(rows, _PIECE, self._inputs, self._fraction, _DEVICE)[0]

    def _inputs(self, examples: Examples) -> Arrays:
        return check_examples(examples.x, examples.y, self._wanted)[0]

    def take_held_out(self) -> Examples:
        """The examples held out of training."""
        return self._sides(0)[1]

    def forgotten_since(self) -> bool:
        return self._source.forgotten_since()

    def derives(self, features: Path | None, checkpoints: Path | None) -> None:
        self._source.derives(features, checkpoints)

    @property
    def sealed(self) -> bool:
        return self._source.sealed

    def _sides(self, seed: int) -> Sides:
        if self._kept is not None:
            return self._kept
        made = divided(self._source.take(seed), self._wanted, self._fraction, _DEVICE)
        if isinstance(self._source, Fixed):
            self._kept = made
        return made
