# SPDX-License-Identifier: Apache-2.0
"""Ed25519 (RFC 8032), all of it by the package `cryptography`, which is imported where a key is used."""

from __future__ import annotations

from typing import Any

from edgefl.errors import MissingDependency, OptionError

KEY_BYTES = 32


def new_private() -> bytes:
    """A fresh private key, 32 bytes."""
    return bytes(_signing().Ed25519PrivateKey.generate().private_bytes_raw())


def public_of(private: bytes) -> bytes:
    """The public key of a private one."""
    return bytes(_private(private).public_key().public_bytes_raw())


def sign(private: bytes, message: bytes) -> bytes:
    """The 64 bytes of a signature."""
    return bytes(_private(private).sign(message))


def verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature is that of a message by a public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _private(private: bytes) -> Any:
    if len(private) != KEY_BYTES:
        raise OptionError(f"an Ed25519 private key has {len(private)} bytes, allowed is {KEY_BYTES}")
    return _signing().Ed25519PrivateKey.from_private_bytes(private)


def _signing() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as exc:
        raise MissingDependency("cryptography", "keys", "signing with Ed25519") from exc
    return ed25519
