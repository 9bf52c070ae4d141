# SPDX-License-Identifier: Apache-2.0
"""What an aggregator takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.delta import SparseDelta

Array = npt.NDArray[Any]
Vector64 = npt.NDArray[np.float64]
State = Mapping[str, Array]
"""What an aggregator remembers between rounds, by name; float32, the precision it is stored in."""


@dataclass(frozen=True)
class Contribution:
    """One device's update in a round.

    Attributes:
        update: as it was sent.
        weight: what it counts for in a mean, over 0; a number of examples.
        name: tells it from the others of the round.
        scale: what its values are multiplied by before anything else.
    """

    update: SparseDelta
    weight: float
    name: str = ""
    scale: float = 1.0

    @property
    def norm(self) -> float:
        """Euclidean length of the scaled update."""
        return self.scale * self.update.norm

    def values(self) -> Vector64:
        """Its scaled values, float64 of the shape of `update.indices`."""
        values = self.update.values.astype(np.float64)
        return values if self.scale == 1.0 else self.scale * values


class Updates(Protocol):
    """The updates of a round, in an order that does not depend on when they came.

    Attributes:
        size: parameters they cover.
    """

    @property
    def size(self) -> int: ...

    def __iter__(self) -> Iterator[Contribution]:
        """Go through them; may be done again, and gives the same then."""
        ...


MIRRORED = ("c", "h")
"""Names of state that devices have their own part of, SCAFFOLD's and FedDyn's: both begin afresh, or none."""


@dataclass(frozen=True)
class Verdict:
    """What became of an update that does not count as it is.

    Attributes:
        counted: the part of it that counts, in `[0, 1)`; 0 is set aside.
        reason: for people.
    """

    counted: float
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What an aggregator makes of a round.

    Attributes:
        step: what the parameters move by, of shape `(size,)`.
        state: for the next round.
        verdicts: by contribution's name, of those that were changed or set aside.
    """

    step: Vector64
    state: State
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)


class Aggregator(Protocol):
    """Updates and state into a step and the next state. A pure function: the order of updates is theirs."""

    def init(self, size: int) -> State:
        """The first state for so many parameters."""
        ...

    def __call__(self, updates: Updates, state: State) -> Outcome:
        """The step of a round; DataError where there is no update or a weight is not positive and finite."""
        ...
