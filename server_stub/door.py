# SPDX-License-Identifier: Apache-2.0
"""The gate on an event loop: requests as ASGI has them, their bodies read once they may send one."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

from anyio import to_thread
from fastapi import Request

from edgefl.errors import Refused
from edgefl.identity.messages import Enrol, Enrolled
from edgefl.server_stub.bodies import glimpse, parsed, read_body
from edgefl.server_stub.identity import Caller, Gate
from edgefl.server_stub.identity.gate import Ask, Entry
from edgefl.wire import MAX_JSON_BYTES

Limit = Callable[[], Awaitable[int]]
PARTY = "party"
"""Key of the connection's state that has the name in the peer's certificate."""


class Door:
    """What routes ask before they answer."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    async def admit(self, request: Request) -> Caller:
        """Who asks, of a request whose body does not matter."""
        return (await self.enter(request)).confirm(b"")

    async def admit_admin(self, request: Request) -> Caller:
        """An administrator; anyone where the server is open."""
        caller = await self.admit(request)
        _insist_on_admin(caller, self.gate)
        return caller

    async def look(self, request: Request) -> None:
        """Someone who wants to see a page.

        Raises:
            Refused: `not-admin`, or `wrong-host` where pages are open and were asked for by a name of
                another machine's: by such a name a stranger's web page could read them.
        """
        await to_thread.run_sync(self.gate.look, _ask(request))
        host = request.headers.get("host", "")
        if not self.gate.private and not _is_here(host):
            raise Refused(403, "wrong-host", f"ask for localhost or an address, not for {host!r:.80}")

    async def receive(self, request: Request, limit: Limit | None = None) -> tuple[Caller, bytes]:
        """The device that asks, and the body.

        Args:
            limit: gives its largest size, or raises Refused where none is wanted; asked before any of it is
                read. None for that of a message.
        """
        caller, body = await self._receive(request, limit)
        if caller.admin:
            raise Refused(403, "not-a-device", "an administrator takes no part in rounds")
        return caller, body

    async def receive_from_admin(self, request: Request) -> bytes:
        """The body an administrator sends."""
        caller, body = await self._receive(request, None)
        _insist_on_admin(caller, self.gate)
        return body

    async def enter(self, request: Request) -> Entry:
        """Whether the request may send its body."""
        ask = _ask(request)
        if self.gate.is_quick(ask):
            return self.gate.enter(ask)
        return await to_thread.run_sync(self.gate.enter, ask)

    async def enrol(self, request: Request) -> Enrolled:
        """Make a device known."""
        ask = _ask(request)
        claim = self.gate.enter_to_enrol(ask)
        body = await read_body(request)
        message: Enrol = parsed(Enrol, body)
        identity = await to_thread.run_sync(self.gate.enrol, ask, claim, message, body)
        return Enrolled(identity, self.gate.federation)

    async def _receive(self, request: Request, limit: Limit | None) -> tuple[Caller, bytes]:
        entry = await self.enter(request)
        try:
            most = MAX_JSON_BYTES if limit is None else await limit()
        except Refused:
            # Why is told to who signed, as far as that shows in few bytes.
            if (body := await glimpse(request)) is not None:
                entry.confirm(body)
            raise
        body = await read_body(request, most)
        return entry.confirm(body), body


def _insist_on_admin(caller: Caller, gate: Gate) -> None:
    if gate.enrolled and not caller.admin:
        raise Refused(403, "not-admin", "only an administrator may ask for this")


def _is_here(host: str) -> bool:
    """Whether a host, with its port or without, is one that no name of a stranger's leads to."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True


def _ask(request: Request) -> Ask:
    scope = request.scope
    query = scope["query_string"].decode("latin-1")
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
    return Ask(
        method=request.method,
        target=f"{path}?{query}" if query else path,
        address=request.client.host if request.client else "",
        authorization=request.headers.get("authorization", ""),
        party=scope.get("state", {}).get(PARTY, ""),
    )
