# SPDX-License-Identifier: Apache-2.0
"""A publisher's signature of a bundle, and of every slice that a server may make of it (docs/identity.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgefl.bundle.manifest import EXTENSIONS
from edgefl.errors import BundleSignature, OptionError
from edgefl.identity import Signer, ed25519, identity_of
from edgefl.identity.keys import from_text, to_text
from edgefl.strictjson import Fields, canonical, parse

FILE = "signature.json"
WHOLE = "whole"
"""What a bundle is called among its slices, which have the names of their targets."""

_SIGNED = b"EDGEFL-BUNDLE1\n"
_KEY = re.compile(r"ed25519:([A-Za-z0-9_-]{43})")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 4096


@dataclass(frozen=True)
class Signature:
    """What a publisher vouches for.

    Attributes:
        key: the publisher's public key, 32 bytes.
        digests: SHA-256 of `manifest.json`, which has that of every other file, of the whole bundle and of
            its slices.
        signature: 64 bytes of Ed25519 over `signed(digests)`.
    """

    key: bytes
    digests: Mapping[str, str]
    signature: bytes

    @property
    def key_id(self) -> str:
        """16 hexadecimal digits that follow from the key, as a device's identity does from its own."""
        return key_id(self.key)

    @property
    def genuine(self) -> bool:
        """Whether the key has signed the digests; MissingDependency without `cryptography`."""
        ed25519.need("verifying a signature")
        return ed25519.verifies(self.key, signed(self.digests), self.signature)

    def covers(self, manifest: bytes) -> bool:
        """Whether a `manifest.json` is among what was signed."""
        return digest(manifest) in self.digests.values()

    def to_bytes(self) -> bytes:
        """The file in the bundle."""
        return canonical(
            {
                "key": key_line(self.key),
                "digests": dict(self.digests),
                "signature": to_text(self.signature),
            }
        )

    @staticmethod
    def from_bytes(data: bytes) -> Signature:
        """Read the file; BundleSignature where it is none."""
        if len(data) > _MOST_BYTES:
            raise BundleSignature(f"{FILE} has {len(data)} bytes, allowed {_MOST_BYTES}")
        fields = Fields(parse(data, BundleSignature, FILE), FILE, BundleSignature)
        fields.only("key", "digests", "signature")
        digests = fields.texts("digests")
        for form, value in digests.items():
            if form not in (WHOLE, *EXTENSIONS) or not _DIGEST.fullmatch(value):
                raise BundleSignature(f"{FILE}: {form[:20]!r} has no digest, or is no target")
        try:
            return Signature(_key(fields.text("key")), digests, from_text(fields.text("signature")))
        except (OptionError, ValueError) as exc:
            raise BundleSignature(f"{FILE}: {exc}") from exc


class Publishers:
    """Whose bundles are taken: anybody's where no key is given."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """
        Args:
            keys: public keys as `key_line` writes them.

        Raises:
            OptionError: one is no such key.
            MissingDependency: there are keys, and no `cryptography` to verify by.
        """
        self._keys = tuple(map(_key, keys))
        if self._keys:
            ed25519.need("verifying a publisher's signature")

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, manifest: bytes, signature: Signature | None, name: str) -> None:
        """Refuse what none of the publishers has signed, before any of it is looked at.

        Args:
            manifest: `manifest.json` as it came.
            name: of the bundle, for the error.

        Raises:
            BundleSignature: unsigned, signed by a stranger, or altered since.
        """
        if not self._keys:
            return
        trusted = ", ".join(map(key_id, self._keys))
        if signature is None:
            raise BundleSignature(f"{name} is not signed; it has to be by the publisher {trusted}")
        if signature.key not in self._keys:
            raise BundleSignature(
                f"{name} is signed by {signature.key_id}; it has to be by the publisher {trusted}"
            )
        if not signature.genuine:
            raise BundleSignature(f"{name}: the signature in {FILE} is not one of {signature.key_id}")
        if not signature.covers(manifest):
            raise BundleSignature(f"{name}: manifest.json is not as {signature.key_id} signed it")


def sign(signer: Signer, manifests: Mapping[str, bytes]) -> Signature:
    """A publisher's signature of a bundle and its slices, given the `manifest.json` of each."""
    digests = {form: digest(manifest) for form, manifest in manifests.items()}
    return Signature(signer.key, digests, signer.sign(signed(digests)))


def signed(digests: Mapping[str, str]) -> bytes:
    """The bytes that are signed: a line of the version, then one for each form in the order of names."""
    return _SIGNED + b"".join(f"{form} {value}\n".encode() for form, value in sorted(digests.items()))


def digest(manifest: bytes) -> str:
    """What stands for a bundle: the SHA-256 of its `manifest.json` in hexadecimal."""
    return hashlib.sha256(manifest).hexdigest()


def key_id(key: bytes) -> str:
    """What people and messages call a public key."""
    return identity_of("ed25519", key)


def key_line(key: bytes) -> str:
    """A public key as one line of 51 characters."""
    return f"ed25519:{to_text(key)}"


def _key(line: str) -> bytes:
    found = _KEY.fullmatch(line)
    try:
        if found is None:
            raise ValueError("allowed is ed25519: and 43 characters, as `edgefl keys new` prints it")
        return from_text(found[1])
    except ValueError as exc:
        raise OptionError(f"publisher key {line:.60}: {exc}") from exc


ANYONE = Publishers()
