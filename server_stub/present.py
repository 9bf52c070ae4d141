# SPDX-License-Identifier: Apache-2.0
"""The current round as this server knows it, kept in step with storage that other servers may change."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace

from edgefl.errors import Refused
from edgefl.server_stub.clock import ServerClock
from edgefl.server_stub.rounds import Round
from edgefl.server_stub.storage import Storage
from edgefl.server_stub.values import Head

BEAT_S = 5.0
"""How often a server without events says that it is alive."""


class Present:
    """Attributes:
    round: the current round as last seen, None where all are done.
    lock: held during every event.
    """

    def __init__(self, store: Storage, clock: ServerClock) -> None:
        self.lock = threading.RLock()
        self._store, self._clock = store, clock
        self._seen: Head | None = None
        self._beat = clock()
        self.round: Round | None = None

    @contextlib.contextmanager
    def event(self) -> Iterator[float]:
        """A transaction on the round as it is now, at the time yielded; setting `round` within changes it.

        Nothing that was done within counts where it raises.
        """
        with self.lock:
            before, known = self.round, False
            try:
                with self._store.event() as head:
                    self._see(head)
                    before, known = self.round, True
                    at = self._clock()
                    yield at
                    changed = self.round is not before
                    if changed or at - self._beat > BEAT_S:
                        head = replace(head, revision=head.revision + changed, at=at)
                        self._store.put_head(head, self._clock.moment())
                        self._beat = at
                self._seen = head
            except Refused:
                if not known or self.round is not before:
                    self._seen = None
                raise
            except BaseException:
                self._seen = None
                raise

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

    def _see(self, head: Head) -> None:
        self._clock.at_least(head.at)
        if self._seen is None or self._seen.revision != head.revision:
            self.round = self._store.current_round()
        self._seen = head
