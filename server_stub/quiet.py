# SPDX-License-Identifier: Apache-2.0
"""A log that nobody can fill: of lines that say the same of others, only so many a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

BURST = 20.0
RATE = 2.0
_MESSAGES = 1000


class Quiet(logging.Filter):
    """Lets lines of each message through as a bucket fills; the next one says how many it kept back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._buckets: dict[str, tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, message = self._clock(), str(record.msg)
        level, since, hidden = self._buckets.get(message, (BURST, now, 0))
        level = min(BURST, level + RATE * (now - since))
        if level < 1.0:
            self._buckets[message] = level, now, hidden + 1
            return False
        if len(self._buckets) >= _MESSAGES:
            self._buckets.clear()
        self._buckets[message] = level - 1.0, now, 0
        if hidden:
            record.msg = f"{message} ({hidden} lines like this kept back)"
        return True


def hush(*names: str) -> None:
    """Have loggers quiet, by name; once each."""
    for name in names:
        logger = logging.getLogger(name)
        if not any(isinstance(each, Quiet) for each in logger.filters):
            logger.addFilter(Quiet())
