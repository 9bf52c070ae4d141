# SPDX-License-Identifier: Apache-2.0
"""Devices that wait for a place: as many are woken as there are places, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib

Turn = asyncio.Future[None]


class WaitingRoom:
    """Those who wait, on one event loop.

    Whoever asks whether there is a place enters before it asks, so that no call is missed in between, and
    leaves once it has asked again.
    """

    def __init__(self) -> None:
        self._turns: dict[Turn, None] = {}
        self._called = 0

    def __len__(self) -> int:
        return len(self._turns)

    def enter(self) -> Turn:
        """Take a place in the queue."""
        turn: Turn = asyncio.get_running_loop().create_future()
        self._turns[turn] = None
        return turn

    async def wait(self, turn: Turn, seconds: float) -> None:
        """Until the turn is called, or the time is up."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(turn), seconds)

    def leave(self, turn: Turn) -> None:
        """Give the turn up; a call for it is answered."""
        del self._turns[turn]
        if turn.done():
            self._called -= 1

    def call(self, places: int | None) -> None:
        """Wake as many as there are places, less those called who have not taken theirs; None wakes all."""
        for turn in list(self._turns):
            if places is not None and self._called >= places:
                return
            if not turn.done():
                turn.set_result(None)
                self._called += 1
