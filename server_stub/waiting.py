# SPDX-License-Identifier: Apache-2.0
"""Devices that wait for a place: as many are woken as there are places, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class WaitingRoom:
    """Those who wait, on one event loop."""

    def __init__(self) -> None:
        self._turns: dict[asyncio.Future[None], None] = {}
        self._called = 0

    def __len__(self) -> int:
        return len(self._turns)

    @contextlib.asynccontextmanager
    async def turn(self, seconds: float) -> AsyncIterator[None]:
        """Wait to be called or until the time is up; the call counts as answered at the end."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns[mine] = None
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(mine), seconds)
            yield
        finally:
            self._turns.pop(mine, None)
            if mine.done():
                self._called -= 1

    def call(self, places: int | None) -> None:
        """Wake as many as there are places, less those called who have not taken theirs; None wakes all."""
        for turn in list(self._turns):
            if places is not None and self._called >= places:
                return
            if not turn.done():
                turn.set_result(None)
                self._called += 1
