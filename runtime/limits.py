# SPDX-License-Identifier: Apache-2.0
"""What a device's owner allows one round to cost, whatever a server asks for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from edgefl.options import LimitOptions
from edgefl.wire import Task

_NAP_S = 1.0
"""Longest sleep before it is asked again whether to stop."""
_LEAST_S = 0.05
"""Rest that is not worth a sleep yet; it is kept for later."""


def limited(task: Task, limits: LimitOptions) -> Task:
    """The task with no more epochs, steps and bytes than allowed."""
    fit = task.training.fit
    most_epochs, most_steps = limits.max_epochs or fit.epochs, limits.max_steps or fit.steps
    steps = min(fit.steps or most_steps, most_steps)  # 0 is all of the epochs'
    fit = replace(fit, epochs=min(fit.epochs, most_epochs), steps=steps)
    max_bytes = min(task.max_bytes, limits.max_payload or task.max_bytes)
    return replace(task, training=replace(task.training, fit=fit), max_bytes=max_bytes)


class Stopwatch:
    """Asked between steps whether training is to end; time in which nothing was trained does not count.

    Attributes:
        interrupted: `should_stop` said so, rather than the time.
        worked: seconds that steps have taken.
    """

    def __init__(
        self,
        should_stop: Callable[[], bool] | None,
        seconds: float | None,
        worked: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            seconds: most that steps may take together; the first is made in any case.
            worked: seconds that steps have taken before.
        """
        self.interrupted = False
        self._should_stop, self._seconds, self._clock = should_stop, seconds, clock
        self.worked, self._since = worked, clock()
        self._asked = False

    def __call__(self) -> bool:
        self.worked += self._clock() - self._since if self._asked else 0.0
        self._asked = True
        if self._should_stop is not None and self._should_stop():
            self.interrupted = True
            return True
        self._since = self._clock()
        return self._seconds is not None and self.worked >= self._seconds


class Duty:
    """Rests between steps, so that training takes part of the time only."""

    def __init__(
        self,
        percent: int,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            percent: of the time to train, 1 to 100.
        """
        self._rest_per_work = 100.0 / percent - 1.0
        self._sleep, self._clock = sleep, clock
        self._since, self._owed = clock(), 0.0

    def begin(self) -> None:
        """Work begins now; what was done until now was none."""
        self._since = self._clock()

    def rest(self, stop: Callable[[], bool]) -> bool:
        """Sleep for what the work since the last rest earned; true as soon as `stop` is."""
        self._owed += (self._clock() - self._since) * self._rest_per_work
        while self._owed >= _LEAST_S:
            if stop():
                return True
            nap = min(self._owed, _NAP_S)
            self._sleep(nap)
            self._owed -= nap
        self._since = self._clock()
        return False
