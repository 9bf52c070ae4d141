# SPDX-License-Identifier: Apache-2.0
"""Waiting for a server without giving up and without hammering it: exponential backoff with full jitter.

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

from edgefl.errors import ServerNonsense, ServerUnreachable

log = logging.getLogger("edgefl.client")
T = TypeVar("T")


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
        clock: seconds, monotonic.
        random: the source of jitter.
    """

    first_s: float = 0.5
    longest_s: float = 60.0
    give_up_s: float | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    random: random.Random = field(default_factory=random.Random)

    def delay(self, failures: int, asked_s: float | None = None) -> float:
        """Seconds to wait after so many failures in a row; at least what the server asked for."""
        bound = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64))
        return (asked_s or 0.0) + self.random.uniform(0.0, bound)

    def wait(self, seconds: float) -> None:
        """Wait about as long as the server said, not all devices exactly as long."""
        self.sleep(seconds * self.random.uniform(0.75, 1.25))

    def insist(self, call: Callable[[], T], gate: Callable[[], None]) -> T:
        """The result of a call that is repeated while the server is unreachable or talks nonsense.

        Args:
            gate: called before each call; it waits, or raises Stopped.

        Raises:
            Stopped: the gate did.
            ServerUnreachable, ServerNonsense: `give_up_s` has passed.
        """
        failures, since = 0, self.clock()
        while True:
            gate()
            try:
                return call()
            except (ServerUnreachable, ServerNonsense) as exc:
                failures += 1
                if self.give_up_s is not None and self.clock() - since >= self.give_up_s:
                    raise
                seconds = self.delay(failures, getattr(exc, "retry_after_s", None))
                log.warning("%s; failure %d, next try in %.1f s", exc, failures, seconds)
                self.sleep(seconds)
