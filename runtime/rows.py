# SPDX-License-Identifier: Apache-2.0
"""Examples that are read a few at a time, so that there may be more of them than memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.data import Examples
from edgefl.runtime.batches import Feeds
from edgefl.runtime.feature_cache import example_digests
from edgefl.runtime.sides import drawn

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Make = Callable[[Examples], tuple[dict[str, Array], dict[str, Array], Array]]
"""Examples -> inputs and labels by contract name, and weights; DataError where they do not fit the model."""


class Rows(ABC):
    """Examples by their places, 0 to `len(rows) - 1`. Every one counts: no weight is 0."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, places: Array) -> Examples:
        """Those at some places, in that order.

        Raises:
            Interrupted: one of them is there no more.
        """


class Part(Rows):
    """Some of other rows."""

    def __init__(self, rows: Rows, places: Array) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    def take(self, places: Array) -> Examples:
        return self._rows.take(self._places[places])


def in_pieces(rows: Rows, size: int) -> Iterator[Examples]:
    """All of them in order, at most so many at once."""
    for start in range(0, len(rows), size):
        yield rows.take(np.arange(start, min(start + size, len(rows))))


def sides(
    rows: Rows, size: int, inputs: Callable[[Examples], Arrays], fraction: float, seed: int = 0
) -> tuple[Rows, Rows]:
    """As `edgefl.runtime.sides.divided`, with at most so many examples in memory at once.

    Args:
        inputs: gives checked ones by contract name.
    """
    pieces = [drawn(inputs(piece), fraction, seed) for piece in in_pieces(rows, size)]
    held = np.concatenate([np.zeros(0, bool), *pieces])
    return Part(rows, np.flatnonzero(~held)), Part(rows, np.flatnonzero(held))


def said(rows: Rows, size: int, make: Make) -> dict[str, Array]:
    """A digest of all of them, as arrays are told to `checkpoint.subject_of`."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in in_pieces(rows, size):
        inputs, labels, weight = make(piece)
        for one in example_digests({**inputs, **{f"y:{n}": v for n, v in labels.items()}, ":": weight}):
            digest.update(one)
    return {"rows": np.frombuffer(digest.digest(), np.uint8)}


class Streamed:
    """Batches as `edgefl.runtime.batches.Batches` has them, each read when it is asked for."""

    def __init__(self, rows: Rows, size: int, made: Callable[[Examples], dict[str, Array]]) -> None:
        """
        Args:
            made: gives what the step takes of some examples, `weight` included.
        """
        self._rows, self._size, self._made = rows, size, made
        self.examples = len(rows)

    def __len__(self) -> int:
        return -(-self.examples // self._size)

    def __call__(self, order: Array | None = None, skip: int = 0) -> Iterator[tuple[Feeds, int]]:
        order = np.arange(self.examples) if order is None else order
        for start in range(skip * self._size, len(order), self._size):
            places = order[start : start + self._size]
            padded = np.resize(np.arange(len(places)), self._size)
            feeds = {n: np.take(v, padded, axis=0) for n, v in self._made(self._rows.take(places)).items()}
            feeds["weight"][len(places) :] = 0
            yield feeds, len(places)
