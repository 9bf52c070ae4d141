# SPDX-License-Identifier: Apache-2.0
"""The coordinator on an event loop: slow work in threads, devices held until there is work for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import TypeVar

from anyio import to_thread

from edgefl.errors import BundleEntry, Refused, StoreLost
from edgefl.server_stub.answers import etag
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.waiting import WaitingRoom
from edgefl.wire import Accepted, CheckIn, CheckInAnswer

log = logging.getLogger("edgefl.server")
T = TypeVar("T")
_KEPT = 16
_CHECK_INS_PER_S = 100
"""What devices that found no work are spread to."""


class Service:
    """A coordinator on an event loop: slow work in threads, waiting check-ins woken when a round opens.

    Attributes:
        lost: why the server cannot go on, None while it can.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.lost: StoreLost | None = None
        self._waiting, self._wake = WaitingRoom(), asyncio.Event()
        self._stopping = False
        self._slices: dict[str | None, tuple[bytes, str]] = {}
        self._parameters: tuple[int, bytes, str] | None = None
        self._made: dict[tuple[object, ...], tuple[bytes, str]] = {}
        self._making = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """Devices that are held until there is work for them."""
        return len(self._waiting)

    async def call(self, work: Callable[..., T], *arguments: object) -> T:
        """Run work in a thread and pass news of a changed round on to those who wait for it."""
        before = self.coordinator.places, self.coordinator.offer
        try:
            return await to_thread.run_sync(work, *arguments)
        except StoreLost as exc:
            if self.lost is None:
                log.critical("the server stops: %(reason)s", {"event": "stopped", "reason": str(exc)})
            self.lost = exc
            self.stop()
            raise
        finally:
            now = self.coordinator.places, self.coordinator.offer
            if now != before:
                self._waiting.call(None if now[1] != before[1] else now[0])

    async def check_in(self, message: CheckIn, check_still: Callable[[], None]) -> CheckInAnswer:
        """Answer at once where there is work, else hold the device until there is or its time is up.

        Args:
            check_still: raises Refused where the device may not take part any more.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self.coordinator.settings.long_poll_s
        turn = self._waiting.enter()
        try:
            answer = await self.call(self.coordinator.check_in, message)
            while (left := until - loop.time()) > 0 and not self._settled(answer):
                await self._waiting.wait(turn, left)
                await to_thread.run_sync(check_still)
                called, turn = turn, self._waiting.enter()
                try:
                    answer = await self.call(self.coordinator.check_in, message)
                finally:
                    self._waiting.leave(called)
        finally:
            self._waiting.leave(turn)
        if self._settled(answer):
            return answer
        # A crowd that was turned away together must not come back together.
        return replace(answer, window_s=max(answer.window_s, len(self._waiting) / _CHECK_INS_PER_S))

    def _settled(self, answer: CheckInAnswer) -> bool:
        work = answer.task is not None or answer.evaluation is not None
        return work or answer.finished or self._stopping

    async def accept(self, number: int, assignment: str, frame: bytes, device: str | None) -> Accepted:
        """Store an update, then let the watch see whether the round is full."""
        answer = await self.call(self.coordinator.accept, number, assignment, frame, device)
        self._wake.set()
        return answer

    async def bundle(self, target: str | None) -> tuple[bytes, str]:
        """The bundle's bytes for a target, or whole, and their ETag."""
        if target not in self._slices:
            self._slices[target] = await to_thread.run_sync(self._slice, target)
        return self._slices[target]

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Run the watch in the background."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            self.stop()
            await watch

    async def parameters(self, version: int) -> tuple[bytes, str]:
        """A version's parameters and their ETag. The last one is kept: a whole round asks for the same."""
        kept = self._parameters
        if kept is None or kept[0] != version:
            kept = self._parameters = await to_thread.run_sync(self._load, version)
        return kept[1], kept[2]

    async def moves(self, version: int, held: int) -> tuple[bytes, str]:
        """What leads from one version to another, and its ETag. Made once for all who ask."""
        return await self._once(self.coordinator.shelf.moves, version, held)

    async def weights(self, version: int, form: str) -> tuple[bytes, str]:
        """A version's weights for inference, and their ETag. Made once for all who ask."""
        return await self._once(self.coordinator.shelf.weights, version, form)

    async def control(self, version: int) -> tuple[bytes, str]:
        """The control variate of the newest version, and its ETag. Made once for all who ask."""
        return await self._once(self.coordinator.shelf.control, version)

    async def _watch(self) -> None:
        """Enforce deadlines and close rounds for as long as the server runs."""
        while not self._stopping:
            try:
                await self.call(self.coordinator.tick)
            except StoreLost:
                return
            except Exception:
                log.exception("closing the round failed; it will be tried again")
                await asyncio.sleep(1.0)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    self._wake.wait(), min(self.coordinator.poll_s, self.coordinator.due())
                )
            self._wake.clear()

    def stop(self) -> None:
        """Let go of everyone who waits."""
        self._stopping = True
        self._wake.set()
        self._waiting.call(None)

    async def _once(self, make: Callable[..., bytes], *key: object) -> tuple[bytes, str]:
        """What work in a thread makes of a key, kept until others have been asked for since."""
        async with self._making:
            if (known := self._made.get((make.__name__, *key))) is None:
                data = await to_thread.run_sync(make, *key)
                if len(self._made) >= _KEPT:
                    del self._made[next(iter(self._made))]
                known = self._made[(make.__name__, *key)] = data, etag(data)
            return known

    def _load(self, version: int) -> tuple[int, bytes, str]:
        data = self.coordinator.shelf.parameters(version)
        return version, data, etag(data)

    def _slice(self, target: str | None) -> tuple[bytes, str]:
        try:
            whole = self.coordinator.bundle
            data = (whole if target is None else whole.slice(target)).to_bytes()
        except BundleEntry as exc:
            raise Refused(404, "unknown-target", str(exc)) from exc
        return data, etag(data)
