# SPDX-License-Identifier: Apache-2.0
"""The current round as this server knows it, kept in step with storage that other servers may change."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from edgefl.errors import Refused
from edgefl.server_stub.clock import ServerClock
from edgefl.server_stub.evaluation.state import Evaluation
from edgefl.server_stub.registry.records import Standing
from edgefl.server_stub.rounds import Round
from edgefl.server_stub.storage import Storage
from edgefl.server_stub.values import Head

BEAT_S = 5.0
"""How often a server without events says that it is alive."""


class Now(NamedTuple):
    """What events change."""

    round: Round | None = None
    evaluation: Evaluation | None = None
    standing: Standing = Standing()
    done: int = 0


class Present:
    """What an event changes is seen by its own thread at once, and by all others when it is on disk: a round
    must not be closed, nor an update be called known, by what may still be undone.
    """

    def __init__(self, store: Storage, clock: ServerClock) -> None:
        self.lock = threading.RLock()
        self._store, self._clock = store, clock
        self._seen: Head | None = None
        self._beat = clock()
        self._kept = self._changing = Now()
        self._within: int | None = None

    @property
    def round(self) -> Round | None:
        """The current round as last seen, None where all are done. Set only within an event."""
        return self._now().round

    @round.setter
    def round(self, after: Round | None) -> None:
        self._change(round=after)

    @property
    def evaluation(self) -> Evaluation | None:
        """That of the newest version that has one, None where none has. Set only within an event."""
        return self._now().evaluation

    @evaluation.setter
    def evaluation(self, after: Evaluation | None) -> None:
        self._change(evaluation=after)

    @property
    def standing(self) -> Standing:
        """What was decided about versions and rounds. Set only within an event."""
        return self._now().standing

    @standing.setter
    def standing(self, after: Standing) -> None:
        self._change(standing=after)

    @property
    def done(self) -> int:
        """Rounds that are over. Set only within an event."""
        return self._now().done

    @done.setter
    def done(self, after: int) -> None:
        self._change(done=after)

    @contextlib.contextmanager
    def event(self) -> Iterator[float]:
        """A transaction on what is now, at the time yielded; setting what it has changes it.

        Nothing that was done within counts where it raises.
        """
        with self.lock:
            known = False
            try:
                with self._store.event() as head:
                    self._see(head)
                    known = True
                    self._changing, self._within = self._kept, threading.get_ident()
                    at = self._clock()
                    yield at
                    changed = self._changing is not self._kept
                    if changed or at - self._beat > BEAT_S:
                        head = replace(head, revision=head.revision + changed, at=at)
                        self._store.put_head(head, self._clock.moment())
                        self._beat = at
                self._kept, self._seen = self._changing, head
            except Refused:
                if not known:
                    self._seen = None
                raise
            except BaseException:
                self._seen = None
                raise
            finally:
                self._within = None

    def glance(self, *, careful: bool = False) -> Round | None:
        """The round as it was a moment ago, without waiting for anybody.

        Args:
            careful: look at the storage even where nobody else may change it.

        Raises:
            StoreLost: see `Storage.event`.
        """
        if careful or self._store.shared or self._seen is None:
            head = self._store.head()
            with self.lock:
                self._see(head)
        return self.round

    def beating(self) -> bool:
        """Whether the storage was told lately that this server is alive."""
        return self._clock() - self._beat <= BEAT_S

    def _now(self) -> Now:
        return self._changing if self._within == threading.get_ident() else self._kept

    def _change(self, **after: Any) -> None:
        assert self._within == threading.get_ident(), "only an event changes what is now"
        made = self._changing._replace(**after)
        if any(new is not old for new, old in zip(made, self._changing, strict=True)):
            self._changing = made

    def _see(self, head: Head) -> None:
        self._clock.at_least(head.at)
        if self._seen is None or self._seen.revision != head.revision:
            store = self._store
            self._kept = Now(
                store.current_round(),
                store.evaluations().newest(),
                store.registry().standing(),
                store.rounds_done(),
            )
        self._seen = head
