# SPDX-License-Identifier: Apache-2.0
"""What administrators ask for: tokens, enrolled devices, revocation. Their own token opens it."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi import Path as PathOf
from fastapi.responses import Response

from edgefl.errors import OptionError
from edgefl.files import write_atomically
from edgefl.identity.messages import DeviceInfo, Devices, NewToken, TokenInfo, TokenMade, Tokens
from edgefl.server_stub.bodies import answer, body_of, parsed
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.door import Door
from edgefl.server_stub.identity import Device, Gate, Register, Token
from edgefl.server_stub.service import Service

log = logging.getLogger("edgefl.server")
_DAY_S = 86_400.0
_TOKEN_BYTES = 24

Identity = Annotated[str, PathOf(pattern=r"^[0-9a-f]{16}$")]


def routes(service: Service, door: Door) -> APIRouter:
    """The routes below /v1/admin."""
    router, gate = APIRouter(prefix="/admin"), door.gate
    register = gate.register

    @router.post("/tokens", response_model=TokenMade, openapi_extra=body_of(NewToken))
    async def make_token(request: Request) -> Response:
        """Make a token that enrols so many devices. It is told once."""
        wanted: NewToken = parsed(NewToken, await door.receive_from_admin(request))
        secret, at = secrets.token_urlsafe(_TOKEN_BYTES), gate.clock()
        until = at + wanted.days * _DAY_S
        token = Token(_digest(secret), wanted.label, wanted.uses, 0, at, until)
        await to_thread.run_sync(register.put_token, token)
        told = {"event": "token-made", "token": token.id, "uses": token.uses}
        log.info("token %(token)s made for %(uses)d devices", told)
        return answer(TokenMade(secret, until))

    @router.get("/tokens", response_model=Tokens)
    async def tokens(request: Request) -> Response:
        """Tokens, and what is left of them."""
        await door.admit_admin(request)
        found = await to_thread.run_sync(register.tokens)
        return answer(Tokens(tuple(TokenInfo(t.id, t.label, t.uses, t.used, t.expires_at) for t in found)))

    @router.get("/devices", response_model=Devices)
    async def devices(request: Request) -> Response:
        """Every device that was ever enrolled."""
        await door.admit_admin(request)
        return answer(Devices(tuple(map(_told, await to_thread.run_sync(register.devices)))))

    @router.put("/devices/{identity}/revoked", status_code=204)
    async def revoke(request: Request, identity: Identity) -> Response:
        """Let a device take part no more. What it sent and was acknowledged counts; its place is free."""
        await door.admit_admin(request)
        await to_thread.run_sync(gate.revoke, identity)
        await service.call(_release, service.coordinator, gate, identity)
        log.warning("device %(device)s revoked", {"event": "device-revoked", "device": identity})
        return Response(status_code=204)

    return router


def settle_admin(register: Register, file: str | os.PathLike[str]) -> None:
    """Have an admin token: the one in the file; where neither it nor the database has one, a new one.

    Raises:
        OptionError: the file holds no token, or cannot be read or written.
    """
    path = Path(file)
    try:
        if path.exists():
            given = path.read_text().strip()
            if len(given) < 16:
                raise OptionError(f"{path} is to hold an admin token of at least 16 characters")
            if register.admin() != _digest(given):
                register.put_admin(_digest(given))
        elif register.admin() is None:
            made = secrets.token_urlsafe(_TOKEN_BYTES)
            write_atomically(path, f"{made}\n".encode(), private=True)
            register.put_admin(_digest(made))
            log.info("a new admin token is in %s", path)
    except (OSError, UnicodeDecodeError) as exc:
        raise OptionError(f"the admin token in {path}: {exc}") from exc


def _release(coordinator: Coordinator, gate: Gate, identity: str) -> None:
    """The place of a device that was just revoked."""
    device = gate.register.find(identity)
    assert device is not None  # such a device cannot be revoked
    coordinator.release(gate.name_of(device), "revoked")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _told(device: Device) -> DeviceInfo:
    return DeviceInfo(
        identity=device.identity,
        label=device.label,
        scheme=device.scheme,
        token=device.token[:8],
        enrolled_at=device.enrolled_at,
        last_seen=device.last_seen,
        revoked_at=device.revoked_at,
    )
