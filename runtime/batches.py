# SPDX-License-Identifier: Apache-2.0
"""Cutting examples into batches of the static size graphs ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


class Passes(Protocol):
    """Examples that can be gone through in batches, in any order, as often as is asked for.

    Attributes:
        examples: how many there are.
    """

    examples: int

    def __len__(self) -> int:
        """Batches in one pass."""
        ...

    def __call__(self, order: Array | None = None, skip: int = 0) -> Iterator[tuple[Feeds, int]]:
        """See `Batches`."""
        ...


class Batches:
    """Examples by name, served in padded batches from one set of buffers.

    A short batch is filled up with its own examples at weight 0: real values, which no graph turns into NaN
    where it did not before, and exact, since a weighted mean does not see them.
    """

    def __init__(self, arrays: Mapping[str, Array], size: int) -> None:
        """Take arrays with the examples along the first dimension, and the batch size."""
        self._arrays, self._size = dict(arrays), size
        self._buffers = {n: np.empty((size, *a.shape[1:]), a.dtype) for n, a in arrays.items()}
        self.examples = len(next(iter(arrays.values())))

    def __len__(self) -> int:
        """Batches in one pass."""
        return -(-self.examples // self._size)

    def __call__(self, order: Array | None = None, skip: int = 0) -> Iterator[tuple[Feeds, int]]:
        """One pass in the given order of indices: the batch, and how many of its first rows are real.

        The first `skip` batches are left out.

        The arrays are valid until the next batch is taken.
        """
        order = np.arange(self.examples) if order is None else order
        for start in range(skip * self._size, len(order), self._size):
            rows = order[start : start + self._size]
            padded = np.resize(rows, self._size)
            for name, buffer in self._buffers.items():
                np.take(self._arrays[name], padded, axis=0, out=buffer, mode="clip")
            if "weight" in self._buffers:
                self._buffers["weight"][len(rows) :] = 0
            yield self._buffers, len(rows)
