# SPDX-License-Identifier: Apache-2.0
"""The yardsticks of all pairs in processes of their own, behind whatever else wants this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from edgefl.bundle import Bundle
from edgefl.cli.demo import yardsticks
from edgefl.cli.demo.recipe import Recipe
from edgefl.cli.demo.watch import Recordings, split

WORKERS = 2
_NICE = 10
"""The live federation goes first; what time it leaves while it waits is used."""

Pair = tuple[int, int]


class Yardsticks:
    """A context manager: they are worked out inside it, and what is not done by then is let go."""

    def __init__(
        self, initial: Path, pairs: Sequence[Pair], recipe: Recipe, seed: int, data: Recordings
    ) -> None:
        """
        Args:
            initial: file of the bundle that all rounds begin with.
            pairs: of held-out people; the first one's federation runs elsewhere.
        """
        self._initial, self._pairs, self._work = initial, pairs, (recipe, seed, data)
        self._federated: dict[Pair, Future[bytes]] = {}
        self._central: dict[Pair, Future[float]] = {}

    def __enter__(self) -> Yardsticks:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_step_back)
        # The longest ones first, so that no worker is left with one while the other is done.
        for pair in self._pairs[1:]:
            self._federated[pair] = self._pool.submit(_federated, self._initial, pair, *self._work)
        for pair in self._pairs:
            self._central[pair] = self._pool.submit(_central, self._initial, pair, *self._work)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if kind is not None:
            for child in multiprocessing.active_children():
                child.terminate()

    def of(self, pair: Pair) -> tuple[float, Bundle | None]:
        """Central accuracy, and the bundle of the simulated federation, None for the first pair."""
        simulated = self._federated.get(pair)
        return self._central[pair].result(), None if simulated is None else Bundle.open(simulated.result())


def _step_back() -> None:
    if hasattr(os, "nice"):
        os.nice(_NICE)


def _central(initial: Path, pair: Pair, recipe: Recipe, seed: int, data: Recordings) -> float:
    return yardsticks.central(Bundle.open(initial), split(data, pair), recipe, seed)


def _federated(initial: Path, pair: Pair, recipe: Recipe, seed: int, data: Recordings) -> bytes:
    return yardsticks.federated(Bundle.open(initial), split(data, pair), recipe, seed).to_bytes()
