# SPDX-License-Identifier: Apache-2.0
"""A device's key: HMAC-SHA256 by the standard library, or Ed25519; and a seam for keystores of platforms."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Protocol

from edgefl.errors import OptionError
from edgefl.identity import ed25519

SCHEMES = ("hmac", "ed25519")
KEY_BYTES = 32
"""Of a key of either scheme."""
SIGNATURE_BYTES = {"hmac": 16, "ed25519": 64}
"""What travels of a signature: of HMAC-SHA256 the first half, as in RFC 4868, which nobody guesses either."""
_NAMED = b"edgefl-key-1\n"


class Signer(Protocol):
    """What signs a device's requests; the key itself may never leave a keystore.

    Attributes:
        scheme: one of `SCHEMES`.
        key: what the server is given: the public key, or the shared secret. 32 bytes.
    """

    @property
    def scheme(self) -> str: ...

    @property
    def key(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes of Ed25519, or the 32 of HMAC-SHA256; what travels is in `SIGNATURE_BYTES`."""
        ...


@dataclass(frozen=True, repr=False)
class HmacSigner:
    """A secret shared with the server."""

    key: bytes
    scheme: str = "hmac"

    @property
    def private(self) -> bytes:
        """What has to be kept to sign again."""
        return self.key

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self.key, message, "sha256")


@dataclass(frozen=True, repr=False)
class Ed25519Signer:
    """A private key whose public half the server has."""

    private: bytes
    scheme: str = "ed25519"

    @property
    def key(self) -> bytes:
        return ed25519.public_of(self.private)

    def sign(self, message: bytes) -> bytes:
        return ed25519.sign(self.private, message)


def new_signer(scheme: str) -> HmacSigner | Ed25519Signer:
    """A fresh key.

    Raises:
        OptionError: no such scheme.
        MissingDependency: Ed25519 without `cryptography`.
    """
    if scheme == "ed25519":
        return Ed25519Signer(ed25519.new_private())
    return signer_from(scheme, secrets.token_bytes(KEY_BYTES))


def signer_from(scheme: str, private: bytes) -> HmacSigner | Ed25519Signer:
    """A key that was kept."""
    if len(private) != KEY_BYTES or scheme not in SCHEMES:
        raise OptionError(
            f"a key of scheme {scheme!r} with {len(private)} bytes; schemes are {', '.join(SCHEMES)}, "
            f"keys have {KEY_BYTES} bytes"
        )
    return HmacSigner(private) if scheme == "hmac" else Ed25519Signer(private)


def identity_of(scheme: str, key: bytes) -> str:
    """16 hexadecimal digits that follow from what the server is given."""
    return hashlib.sha256(_NAMED + scheme.encode() + b"\n" + key).hexdigest()[:16]


def verifies(scheme: str, key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature as it travels is by who has the key, in time that tells nothing about secrets."""
    if scheme == "ed25519":
        return ed25519.verifies(key, message, signature)
    made = hmac.digest(key, message, "sha256")[: SIGNATURE_BYTES["hmac"]]
    return hmac.compare_digest(made, signature)


def to_text(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_text(text: str) -> bytes:
    """The bytes of `to_text`; ValueError where it is none, or not as `to_text` writes it."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as exc:
        raise ValueError(f"{text!r:.20} is not base64url without padding: {exc}") from exc
    if to_text(data) != text:
        raise ValueError(f"{text!r:.20} is not base64url without padding")
    return data
