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


def need(purpose: str) -> None:
    """Raise MissingDependency where there is no `cryptography`."""
    _signing(purpose)


def to_pem(private: bytes) -> bytes:
    """A private key as other tools read it: PEM of PKCS 8, not encrypted."""
    from cryptography.hazmat.primitives import serialization as form

    key = _private(private)
    return bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))


def from_pem(data: bytes) -> bytes:
    """The private key in a PEM file.

    Raises:
        ValueError: there is none, it is encrypted, or of another kind.
        MissingDependency: no `cryptography`.
    """
    signing = _signing()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, None)
    except TypeError as exc:
        raise ValueError("the key is encrypted; allowed is one that is not") from exc
    except UnsupportedAlgorithm as exc:
        raise ValueError(str(exc)) from exc
    if not isinstance(key, signing.Ed25519PrivateKey):
        raise ValueError(f"the key is of another kind ({type(key).__name__}); allowed is Ed25519")
    return bytes(key.private_bytes_raw())


def _private(private: bytes) -> Any:
    if len(private) != KEY_BYTES:
        raise OptionError(f"an Ed25519 private key has {len(private)} bytes, allowed is {KEY_BYTES}")
    return _signing().Ed25519PrivateKey.from_private_bytes(private)


def _signing(purpose: str = "signing with Ed25519") -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as exc:
        raise MissingDependency("cryptography", "keys", purpose) from exc
    return ed25519
