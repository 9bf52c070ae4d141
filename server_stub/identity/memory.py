# SPDX-License-Identifier: Apache-2.0
"""The register of a server whose memory lasts as long as its process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from edgefl.server_stub.identity.register import Device, Token, check_again, unusable


class MemoryRegister:
    """See `Register`."""

    def __init__(self, last_seen: Callable[[str], float | None] = lambda _: None) -> None:
        """
        Args:
            last_seen: when a device last asked for work.
        """
        self._last_seen = last_seen
        self._tokens: dict[str, Token] = {}
        self._devices: dict[str, Device] = {}
        self._admin: str | None = None
        self._lock = threading.Lock()

    def put_token(self, token: Token) -> None:
        self._tokens[token.digest] = token

    def tokens(self) -> list[Token]:
        return sorted(self._tokens.values(), key=lambda token: (token.made_at, token.digest))

    def enrol(self, device: Device) -> None:
        with self._lock:
            known = self._devices.get(device.identity)
            if known is not None:
                return check_again(known, device)
            token = self._tokens.get(device.token)
            if (refusal := unusable(token, device.enrolled_at)) is not None:
                raise refusal
            assert token is not None  # such a token is unusable
            self._tokens[token.digest] = replace(token, used=token.used + 1)
            self._devices[device.identity] = device

    def find(self, identity: str) -> Device | None:
        found = self._devices.get(identity)
        return None if found is None else self._seen(found)

    def devices(self) -> list[Device]:
        everyone = map(self._seen, self._devices.values())
        return sorted(everyone, key=lambda device: (device.enrolled_at, device.identity))

    def revoke(self, identity: str, at: float) -> bool:
        with self._lock:
            known = self._devices.get(identity)
            if known is not None and known.revoked_at is None:
                self._devices[identity] = replace(known, revoked_at=at)
            return known is not None

    def admin(self) -> str | None:
        return self._admin

    def put_admin(self, digest: str) -> None:
        self._admin = digest

    def _seen(self, device: Device) -> Device:
        """With when it last asked; rounds of named parties know it by its token's label."""
        names = device.identity, self._tokens[device.token].label
        return replace(device, last_seen=next(filter(None, map(self._last_seen, names)), None))
