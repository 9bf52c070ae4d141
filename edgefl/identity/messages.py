# SPDX-License-Identifier: Apache-2.0
"""Messages of enrolment and of administration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgefl.identity.keys import SCHEMES
from edgefl.message import Message, several
from edgefl.rules import integer, number, one_of, optional, text

MOST = 1_000_000
"""Entries a list may have."""
MAX_USES = 1_000_000
MAX_DAYS = 3650.0

Identity = Annotated[str, text(r"[0-9a-f]{16}")]
Federation = Annotated[str, text(r"[0-9a-f]{16}")]
TokenId = Annotated[str, text(r"[0-9a-f]{8}")]
Secret = Annotated[str, text(r"[A-Za-z0-9_-]{1,128}")]
Label = Annotated[str, text(r"([A-Za-z0-9][A-Za-z0-9._:-]{0,63})?")]
Uses = Annotated[int, integer(1, MAX_USES)]
Used = Annotated[int, integer(0, MAX_USES)]
At = Annotated[float, number(0.0, 1e12)]
Ever = Annotated[float | None, optional(number(0.0, 1e12))]


@dataclass(frozen=True)
class Enrol(Message):
    """A device asks to be known from now on.

    Attributes:
        token: what it was given for that.
        scheme: of its key.
        key: base64url of what the server is to have: the public key, or the shared secret.
        label: what people call it; nothing else depends on it.
    """

    token: Secret
    scheme: Annotated[str, one_of(*SCHEMES)]
    key: Annotated[str, text(r"[A-Za-z0-9_-]{43}")]
    label: Label = ""


@dataclass(frozen=True)
class Enrolled(Message):
    """A device is known.

    Attributes:
        identity: follows from the key.
        federation: what to sign requests for.
    """

    identity: Identity
    federation: Federation


@dataclass(frozen=True)
class NewToken(Message):
    """A token is wanted: how many devices it is for, for how long, and what people call it."""

    uses: Uses = 1
    days: Annotated[float, number(0.0, MAX_DAYS)] = 7.0
    label: Label = ""


@dataclass(frozen=True)
class TokenMade(Message):
    """A token, the only time it is told."""

    token: Secret
    expires_at: At


@dataclass(frozen=True)
class TokenInfo(Message):
    """A token as the server knows it, which is not the token itself.

    Attributes:
        id: the first digits of its SHA-256.
        uses: devices it is for.
        used: devices it was used by.
        expires_at: seconds since the epoch.
    """

    id: TokenId
    label: Label
    uses: Uses
    used: Used
    expires_at: At


@dataclass(frozen=True)
class Tokens(Message):
    """All tokens, oldest first."""

    tokens: Annotated[tuple[TokenInfo, ...], several(TokenInfo, MOST)]


@dataclass(frozen=True)
class DeviceInfo(Message):
    """An enrolled device.

    Attributes:
        identity: what the rounds know it by.
        label: what people call it.
        scheme: of its key.
        token: id of the token it came with.
        enrolled_at: seconds since the epoch.
        last_seen: when it last asked for work, None if it never has.
        revoked_at: since when it may not take part, None where it may.
    """

    identity: Identity
    label: Label
    scheme: Annotated[str, one_of(*SCHEMES)]
    token: TokenId
    enrolled_at: At
    last_seen: Ever
    revoked_at: Ever


@dataclass(frozen=True)
class Devices(Message):
    """Every device that was ever enrolled, oldest first."""

    devices: Annotated[tuple[DeviceInfo, ...], several(DeviceInfo, MOST)]
