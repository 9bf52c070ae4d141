# SPDX-License-Identifier: Apache-2.0
"""The server's time: seconds since the epoch that never run back and never jump.

The wall clock says when a server begins and how long it was down; in between a steady clock counts on. So a
wall clock that is set while rounds are open moves none of their deadlines.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """The server's time, and what the wall clock showed then; both in seconds since the epoch."""

    server: float
    wall: float


class ServerClock:
    """Callable: the server's time."""

    def __init__(
        self,
        last: Moment | None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            last: when a server of the same rounds was last alive, None where none was.
            wall: seconds since the epoch.
            steady: seconds since any moment.
        """
        self._wall, self._steady = wall, steady
        began = wall()
        # A wall clock that was set back while nobody watched says nothing of how long that was.
        self._began = began if last is None else last.server + max(0.0, began - last.wall)
        self._since = steady()

    def __call__(self) -> float:
        return self._began + self._steady() - self._since

    def moment(self) -> Moment:
        return Moment(self(), self._wall())

    def at_least(self, seconds: float) -> None:
        """Go forward to what another server of the same rounds has seen."""
        self._began += max(0.0, seconds - self())
