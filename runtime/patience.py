# SPDX-License-Identifier: Apache-2.0
"""Waiting for a server or for room on the disk: exponential backoff with full jitter, and no giving up.

Full jitter (a wait drawn evenly from zero to the exponential bound) keeps devices that lost the same server
from coming back all at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from edgefl.errors import DiskFull, ServerNonsense, ServerUnreachable

log = logging.getLogger("edgefl.client")
T = TypeVar("T")


def never() -> bool:
    """Nobody wants to stop."""
    return False


class Stopped(Exception):
    """The caller asked the client to stop while it waited."""


@dataclass(frozen=True)
class Patience:
    """How a client waits.

    Attributes:
        first_s: bound of the first wait; each further failure doubles it.
        longest_s: bound of all waits.
        give_up_s: seconds of failures in a row after which the last one is raised; None never gives up.
        sleep: waits for seconds.
        nap_s: longest sleep before it is asked whether to stop.
        clock: seconds, monotonic.
        random: the source of jitter.
    """

    first_s: float = 0.5
    longest_s: float = 60.0
    give_up_s: float | None = None
    sleep: Callable[[float], None] = time.sleep
    nap_s: float = 1.0
    clock: Callable[[], float] = time.monotonic
    random: random.Random = field(default_factory=random.Random)

    def delay(self, failures: int, asked_s: float | None = None) -> float:
        """Seconds to wait after so many failures in a row; at least what the server asked for."""
        bound = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64))
        return (asked_s or 0.0) + self.random.uniform(0.0, bound)

    def wait(self, seconds: float, window_s: float = 0.0, stop: Callable[[], bool] = never) -> None:
        """Wait as long as the server said and for a part of its window: not all devices exactly as long.

        A server that names no time is not hammered either.

        Args:
            window_s: the time over which the server wants its devices to come; where it names none, a quarter
                of the wait is.
            stop: asked now and then; raises Stopped where true.
        """
        seconds = max(seconds, self.first_s / 10)
        self.rest(seconds + self.random.uniform(0.0, window_s or seconds / 4), stop)

    def rest(self, seconds: float, stop: Callable[[], bool] = never) -> None:
        """Sleep, but look up now and then; raises Stopped where `stop` is true."""
        while seconds > 0.0:
            nap = min(seconds, self.nap_s)
            self.sleep(nap)
            seconds -= nap
            if seconds > 0.0 and stop():
                raise Stopped

    def insist(self, call: Callable[[], T], gate: Callable[[], None], stop: Callable[[], bool] = never) -> T:
        """The result of a call that is repeated while the server is unreachable or talks nonsense, or while
        there is no room on the disk.

        Args:
            gate: called before each call; it waits, or raises Stopped.
            stop: asked now and then between calls; raises Stopped where true.

        Raises:
            Stopped: the gate did, or `stop` was true.
            ServerUnreachable, ServerNonsense, DiskFull: `give_up_s` has passed.
        """
        failures, since = 0, self.clock()
        while True:
            gate()
            try:
                return call()
            except (ServerUnreachable, ServerNonsense, DiskFull) as exc:
                failures += 1
                if self.give_up_s is not None and self.clock() - since >= self.give_up_s:
                    raise
                seconds = self.delay(failures, getattr(exc, "retry_after_s", None))
                log.warning("%s; failure %d, next try in %.1f s", exc, failures, seconds)
                self.rest(seconds, stop)
