# SPDX-License-Identifier: Apache-2.0
"""Sealing what a store keeps, with a key that the platform's keystore gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from edgefl.errors import MissingDependency, OptionError, StoreError

NONCE_BYTES = 12
KEY_BYTES = (16, 24, 32)


class Cipher(Protocol):
    """Authenticated encryption. An app may bring its own, such as one whose key never leaves a chip."""

    def seal(self, plain: bytes, about: bytes) -> bytes:
        """Encrypted bytes, other ones each time.

        Args:
            about: what the bytes belong to; opening them needs the same.
        """
        ...

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """What was sealed; StoreError where the key or `about` is another, or the bytes were altered."""
        ...


class AesGcm:
    """AES-GCM of the package `cryptography`, with a random nonce before each sealed value."""

    def __init__(self, key: bytes) -> None:
        """
        Args:
            key: 16, 24 or 32 random bytes.

        Raises:
            OptionError: another length.
            MissingDependency: `cryptography` is not installed.
        """
        if len(key) not in KEY_BYTES:
            raise OptionError(f"the key of a store has {len(key)} bytes, allowed are 16, 24 or 32")
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as exc:
            raise MissingDependency("cryptography", "keys", "an encrypted store") from exc
        self._aes, self._invalid = AESGCM(key), InvalidTag

    def seal(self, plain: bytes, about: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aes.encrypt(nonce, plain, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        try:
            return self._aes.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
        except (self._invalid, ValueError) as exc:
            raise StoreError("the key is another, or what was sealed has been altered") from exc


def cipher_from(file: Path | None) -> AesGcm | None:
    """A cipher with the key in a file: its bytes, or hexadecimal digits; None without a file.

    Raises:
        OptionError: the file cannot be read, or holds no key.
        MissingDependency: `cryptography` is not installed.
    """
    if file is None:
        return None
    try:
        data = file.read_bytes()
    except OSError as exc:
        raise OptionError(f"the store's key cannot be read: {file}: {exc.strerror}") from exc
    if len(data) not in KEY_BYTES:
        try:
            data = bytes.fromhex(data.decode().strip())
        except ValueError as exc:
            raise OptionError(f"{file} holds no key: it has {len(data)} bytes that are no digits") from exc
    return AesGcm(data)
