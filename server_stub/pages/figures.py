# SPDX-License-Identifier: Apache-2.0
"""The one query behind every page: what the server knows at a moment.

It is read at most once a second, and where there is so much of it that reading takes long, for at most a
tenth of the time: watching holds nothing up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from edgefl.lineage import VersionInfo
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.values import Traffic
from edgefl.wire import EvaluationInfo, Participant, RoundInfo, Status

_FRESH_S, _SHARE = 1.0, 0.1


@dataclass(frozen=True)
class Snapshot:
    """A server at a moment.

    Attributes:
        at: the server's time, seconds since the epoch.
        status: the server at a glance.
        rounds: all rounds, oldest first.
        waiting: devices held by this process until there is work for them.
        traffic: bytes since this process began.
        dense_bytes: one update as dense float32.
        evaluations: versions that are or were measured on examples devices hold out, oldest first.
        versions: every one there ever was, oldest first.
    """

    at: float
    status: Status
    rounds: tuple[RoundInfo, ...]
    waiting: int
    traffic: Traffic
    dense_bytes: int
    evaluations: tuple[EvaluationInfo, ...] = ()
    versions: tuple[VersionInfo, ...] = ()

    @property
    def current(self) -> RoundInfo | None:
        """The round that is not over."""
        return next((info for info in reversed(self.rounds) if info.closed_at is None), None)

    @property
    def closed(self) -> tuple[RoundInfo, ...]:
        """Rounds that are over, oldest first."""
        return tuple(info for info in self.rounds if info.closed_at is not None)

    @property
    def measured(self) -> tuple[EvaluationInfo, ...]:
        """Evaluations that came to something, oldest version first."""
        return tuple(each for each in self.evaluations if each.loss is not None)

    def refusals(self) -> Counter[str]:
        """Updates refused in all rounds, by reason."""
        return sum((Counter({r.reason: r.count}) for info in self.rounds for r in info.refused), Counter())


class Figures:
    """Reads for pages and monitors. However many look, the database is asked no oftener."""

    def __init__(
        self, coordinator: Coordinator, traffic: Callable[[], Traffic], waiting: Callable[[], int]
    ) -> None:
        self._coordinator, self._traffic, self._waiting = coordinator, traffic, waiting
        self._lock = threading.Lock()
        self._last: tuple[float, Snapshot] | None = None
        self._recent: tuple[Snapshot, tuple[tuple[int, tuple[Participant, ...]], ...]] | None = None

    def snapshot(self, *, fresh: bool = False) -> Snapshot:
        """The server as it is, or was a moment ago unless it is to be `fresh`."""
        with self._lock:
            began = time.monotonic()
            if fresh or self._last is None or began > self._last[0]:
                read = self._read()
                over = time.monotonic()
                self._last = over + max(_FRESH_S, (over - began) / _SHARE), read
            return self._last[1]

    def participants(self, number: int) -> tuple[Participant, ...]:
        """The devices of a round; Refused (`unknown-round`) where there is none."""
        return self._coordinator.participants(number).participants

    def recent(self, now: Snapshot, rounds: int) -> tuple[tuple[int, tuple[Participant, ...]], ...]:
        """The devices of a snapshot's last rounds, oldest round first. Read once for each snapshot."""
        with self._lock:
            if self._recent is None or self._recent[0] is not now:
                last = [info.round for info in now.rounds[-rounds:]]
                self._recent = now, tuple((number, self.participants(number)) for number in last)
            return self._recent[1]

    def _read(self) -> Snapshot:
        coordinator = self._coordinator
        return Snapshot(
            at=coordinator.now(),
            status=coordinator.status(),
            rounds=tuple(coordinator.rounds()),
            waiting=self._waiting(),
            traffic=self._traffic(),
            dense_bytes=4 * coordinator.bundle.schema().size,
            evaluations=tuple(coordinator.evaluations.infos()),
            versions=tuple(coordinator.registry.infos()),
        )
