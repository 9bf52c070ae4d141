# SPDX-License-Identifier: Apache-2.0
"""Whether the device goes on: asked before every request and between two steps. Waiting is here too."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from edgefl.errors import DiskFull
from edgefl.runtime.conditions import Guard
from edgefl.runtime.limits import Duty
from edgefl.runtime.patience import Patience, Stopped, never
from edgefl.runtime.pause import MayGoOn
from edgefl.runtime.store.source import Source

log = logging.getLogger("edgefl.client")
T = TypeVar("T")


class Going:
    """One device's leave to go on.

    Attributes:
        until: asked with every question; true ends everything with `Stopped`.
    """

    def __init__(
        self,
        device: Callable[[], str],
        patience: Patience,
        guard: Guard,
        may_go_on: MayGoOn,
        duty: int,
        source: Source | None,
    ) -> None:
        """
        Args:
            device: gives its name.
            duty: percent of the time that steps may take.
            source: of examples that come and go, which the guard counts.
        """
        self.until: Callable[[], bool] = never
        self._device, self._patience, self._guard, self._may_go_on = device, patience, guard, may_go_on
        self._duty, self._source = Duty(duty, patience.sleep), source

    # -- requests and files

    def insist(self, call: Callable[[], T], sending: bool = False) -> T:
        """The result of a request, made again until the server answers; `Patience.insist` has the errors.

        Args:
            sending: an update that is ready waits for the network alone.
        """
        gate = partial(self._gate, sending)
        return self._patience.insist(call if sending else partial(self._writing, call), gate, self.until)

    def stored(self, call: Callable[[], T]) -> T:
        """As `on_disk`, and the owner is told where there is no room."""
        return self.on_disk(partial(self._writing, call))

    def on_disk(self, call: Callable[[], T]) -> T:
        """The result of a call that writes. What is in hand is stored at once, unless the disk is full."""
        try:
            return call()
        except DiskFull as exc:
            log.warning("%s", exc)
            self.rest(1)
            return self._patience.insist(call, self._stop_if_asked, self.until)

    # -- time

    def clock(self) -> float:
        """Seconds that only grow."""
        return self._patience.clock()

    def wait(self, seconds: float, window_s: float = 0.0) -> None:
        """Let time pass, as `Patience.wait`."""
        self._patience.wait(seconds, window_s, self.until)

    def rest(self, failures: int) -> None:
        """Let the longer pass the more often something failed."""
        self._patience.rest(self._patience.delay(failures), self.until)

    # -- steps

    def begin_steps(self) -> None:
        """Steps follow; what was done until now earned no rest."""
        self._duty.begin()

    def should_stop(self) -> bool:
        """Asked between two steps, which are rested between too."""
        return self._is_stopped() or self._duty.rest(self._is_stopped)

    # -- inside

    def _writing(self, call: Callable[[], T]) -> T:
        """The result of a call; whether it found room on the disk is told to whoever asks."""
        try:
            made = call()
        except DiskFull:
            self._guard.found_room(False)
            raise
        self._guard.found_room(True)
        return made

    def _gate(self, sending: bool) -> None:
        """Wait while the device may not go on; Stopped where the caller wants no more."""
        told = ""
        while True:
            self._stop_if_asked()
            if self._source is not None:
                self._guard.has(self._source.ever_added())
            pause = self._may_go_on() or self._guard.pause(sending)
            if pause is None:
                return
            if pause.reason != told:
                log.info("%s pauses: %s", self._device(), pause.reason)
                told = pause.reason
            self.wait(pause.retry_s)

    def _stop_if_asked(self) -> None:
        if self.until():
            raise Stopped

    def _is_stopped(self) -> bool:
        return self.until() or self._may_go_on() is not None or self._guard.pause() is not None
