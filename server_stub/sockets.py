# SPDX-License-Identifier: Apache-2.0
"""What one connection may cost: how many there are, and how long each may keep the server waiting.

Whoever sends nothing, half a request or a body byte by byte is let go of; whoever waits for an answer is not.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgefl.server_stub.door import PARTY

_LATE = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n"
)
_SPARE_FILES = 128
_MOST = 16_384


@dataclass(frozen=True)
class Limits:
    """Attributes:
    connections: at once; beyond, those that wait for nothing go first. None for what the system allows.
    header_s: until the header of a request is complete, and until the first one begins.
    silence_s: without a byte of a body that is to come, or taken of an answer.
    body_rate: bytes a second a body comes with at least, on average, after `silence_s`.
    """

    connections: int | None = None
    header_s: float = 15.0
    silence_s: float = 20.0
    body_rate: float = 200.0

    def most(self) -> int:
        """Connections at once."""
        return min(self.connections or _MOST, _files() - _SPARE_FILES)


if sys.platform == "win32":

    def _files() -> int:
        return _MOST

else:
    import resource

    def _files() -> int:
        """Files the process may have open, as many as the system lets it have."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _MOST + _SPARE_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST + _SPARE_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        return wanted if soft == resource.RLIM_INFINITY else soft


@dataclass
class _Watch:
    """One connection: what it does, since when, and bytes that came meanwhile."""

    phase: str
    since: float
    last: float
    received: int = 0


class Guard:
    """The connections of one server."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._most = limits, limits.most()
        self._watched: dict[H11Protocol, _Watch] = {}
        self._sweeping = False

    def enter(self, protocol: H11Protocol) -> None:
        """A connection was made; where there are too many, one is closed, and it may be this one."""
        loop = protocol.loop
        if len(self._watched) >= self._most:
            self._sweep_once(loop.time())
            idle = (p for p, watch in self._watched.items() if watch.phase in ("header", "idle"))
            worst = min(idle, key=lambda p: self._watched[p].since, default=protocol)
            _let_go(worst, _FULL)
            self._watched.pop(worst, None)
            if worst is protocol:
                return
        self._watched[protocol] = _Watch("header", loop.time(), loop.time())
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(self._every(), self._sweep, loop)

    def leave(self, protocol: H11Protocol) -> None:
        self._watched.pop(protocol, None)

    def received(self, protocol: H11Protocol, size: int) -> None:
        if (watch := self._watched.get(protocol)) is not None:
            watch.received += size
            watch.last = protocol.loop.time()

    def _every(self) -> float:
        return min(1.0, self._limits.header_s / 4, self._limits.silence_s / 4)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sweep_once(loop.time())
        self._sweeping = bool(self._watched)
        if self._sweeping:
            loop.call_later(self._every(), self._sweep, loop)

    def _sweep_once(self, now: float) -> None:
        for protocol, watch in list(self._watched.items()):
            phase = _phase(protocol)
            if phase != watch.phase:
                watch.phase, watch.since, watch.last, watch.received = phase, now, now, 0
            elif self._late(watch, now):
                _let_go(protocol, _LATE if phase in ("header", "body") else b"")
                self.leave(protocol)

    def _late(self, watch: _Watch, now: float) -> bool:
        limits, taken = self._limits, now - watch.since
        if watch.phase == "header":
            return taken > limits.header_s
        if watch.phase == "stalled":
            return taken > limits.silence_s
        slow = taken > limits.silence_s and watch.received < limits.body_rate * taken
        return watch.phase == "body" and (now - watch.last > limits.silence_s or slow)


def _phase(protocol: H11Protocol) -> str:
    """What a connection keeps the server waiting for."""
    if protocol.flow.write_paused:
        return "stalled"
    answered = protocol.cycle is None or protocol.cycle.response_complete
    if protocol.conn.their_state is h11.SEND_BODY:
        # A body that the server does not take is not late.
        return "working" if protocol.flow.read_paused else "body"
    if not answered:
        return "working"
    begun = protocol.cycle is None or protocol.conn.trailing_data[0]
    return "header" if begun else "idle"


def _common_name(certificate: Any) -> str:
    """The name in a certificate as `ssl` tells it, "" where there is none."""
    names = [
        value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"
    ]
    return names[0] if len(names) == 1 else ""


def _let_go(protocol: H11Protocol, said: bytes) -> None:
    transport = protocol.transport
    if said and (protocol.cycle is None or not protocol.cycle.response_started):
        transport.write(said)
        transport.close()
    else:
        transport.abort()


def guarded(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with its connections watched, which know the party they are with."""
    guard = Guard(limits)

    class GuardedProtocol(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if party := _common_name(transport.get_extra_info("peercert")):
                # What requests of this connection find in their scope's state.
                self.app_state = {**self.app_state, PARTY: party}
            guard.enter(self)

        def connection_lost(self, exc: Exception | None) -> None:
            guard.leave(self)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            guard.received(self, len(data))
            super().data_received(data)

    return GuardedProtocol
