# SPDX-License-Identifier: Apache-2.0
"""Who is enrolled, by which token, and who administers: what the gate asks of the server's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from edgefl.errors import Refused


@dataclass(frozen=True)
class Token:
    """Permission to enrol.

    Attributes:
        digest: SHA-256 of the token in hexadecimal; the token itself is nowhere.
        label: what people call it.
        uses: devices it is for.
        used: devices it was used by.
        made_at: seconds since the epoch.
        expires_at: seconds since the epoch.
    """

    digest: str
    label: str
    uses: int
    used: int
    made_at: float
    expires_at: float

    @property
    def id(self) -> str:
        return self.digest[:8]


@dataclass(frozen=True)
class Device:
    """An enrolled device.

    Attributes:
        identity: follows from its key.
        label: what people call it.
        scheme: of its key.
        key: the public key of Ed25519; the secret of HMAC, which has to be kept to check with.
        token: digest of the token it came with.
        enrolled_at: seconds since the epoch.
        revoked_at: seconds since the epoch, None while it may take part.
        last_seen: when it last asked for work, None if it never has.
    """

    identity: str
    label: str
    scheme: str
    key: bytes
    token: str
    enrolled_at: float
    revoked_at: float | None = None
    last_seen: float | None = None


class Register(Protocol):
    """What is known of devices and administrators. A method returns once it would survive a restart."""

    def put_token(self, token: Token) -> None:
        """Store a new token."""
        ...

    def tokens(self) -> list[Token]:
        """All of them, oldest first."""
        ...

    def enrol(self, device: Device) -> None:
        """Store a device and count a use of its token; the same device and token again change nothing.

        Raises:
            Refused: see `unusable` and `check_again`.
        """
        ...

    def find(self, identity: str) -> Device | None: ...

    def devices(self) -> list[Device]:
        """All that were ever enrolled, oldest first."""
        ...

    def revoke(self, identity: str, at: float) -> bool:
        """Let a device take part no more; whether there is such a device."""
        ...

    def admin(self) -> str | None:
        """SHA-256 of the admin token, None where there is none yet."""
        ...

    def put_admin(self, digest: str) -> None:
        """Have one admin token from now on."""
        ...


def unusable(token: Token | None, at: float) -> Refused | None:
    """Why a token enrols nobody more, None where it does. Who guesses learns nothing: it is one reason."""
    if token is not None and token.used < token.uses and at < token.expires_at:
        return None
    return Refused(403, "bad-token", "there is no such token, it was used up, or its time is over")


def check_again(known: Device, again: Device) -> None:
    """That a device enrolled before may be told so again.

    Raises:
        Refused: `revoked`, or `bad-token` where it comes with another token.
    """
    if known.revoked_at is not None:
        raise Refused(403, "revoked", f"device {known.identity} was revoked")
    if (known.scheme, known.key, known.token) != (again.scheme, again.key, again.token):
        raise Refused(403, "bad-token", f"device {known.identity} is enrolled by another token")
