# SPDX-License-Identifier: Apache-2.0
"""What a device signs of a request, and the header that says so. docs/identity.md has the bytes."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from edgefl.identity.keys import SIGNATURE_BYTES, Signer, from_text, identity_of, to_text

VERSION = "EFL1"
WINDOW_S = 300
"""How far a request's time may be from the server's."""
TIME_HEADER = "edgefl-time"
"""The server's time in seconds, on refusals that signing again would mend."""
_NONCE_BYTES, _TIME_BYTES, _IDENTITY_BYTES = 3, 5, 8
_BEFORE = _IDENTITY_BYTES + _TIME_BYTES + _NONCE_BYTES
_LONGEST = 2 * (_BEFORE + max(SIGNATURE_BYTES.values()))


@dataclass(frozen=True)
class Claim:
    """What a request says about who made it.

    Attributes:
        identity: 16 hexadecimal digits.
        time: seconds since the epoch.
        nonce: 4 characters.
        signature: 16 or 64 bytes.
    """

    identity: str
    time: int
    nonce: str
    signature: bytes


def canonical_request(
    method: str, target: str, deployment: str, identity: str, time: int, nonce: str, body: bytes
) -> bytes:
    """The bytes that are signed.

    Args:
        target: path and query as on the request line, without a prefix of the server's URL.
        deployment: the federation's 16 hexadecimal digits, empty in a request to enrol.
    """
    digest = hashlib.sha256(body).hexdigest()
    lines = (VERSION, method, target, deployment, identity, str(time), nonce, digest)
    return "".join(f"{line}\n" for line in lines).encode()


def authorization(signer: Signer, deployment: str, method: str, target: str, body: bytes, time: int) -> str:
    """The header `authorization` of a request, with a new nonce."""
    identity, nonce = identity_of(signer.scheme, signer.key), secrets.token_bytes(_NONCE_BYTES)
    message = canonical_request(method, target, deployment, identity, time, to_text(nonce), body)
    signature = signer.sign(message)[: SIGNATURE_BYTES[signer.scheme]]
    return write_claim(Claim(identity, time, to_text(nonce), signature))


def write_claim(claim: Claim) -> str:
    """The header that `read_claim` reads."""
    time = claim.time.to_bytes(_TIME_BYTES, "big")
    parts = bytes.fromhex(claim.identity) + time + from_text(claim.nonce) + claim.signature
    return f"{VERSION} {to_text(parts)}"


def read_claim(header: str) -> Claim | None:
    """What such a header claims; None where it is no such header."""
    version, _, text = header.partition(" ")
    if version != VERSION or len(text) > _LONGEST:
        return None
    try:
        parts = from_text(text)
    except ValueError:
        return None
    if len(parts) - _BEFORE not in SIGNATURE_BYTES.values():
        return None
    identity, rest = parts[:_IDENTITY_BYTES].hex(), parts[_IDENTITY_BYTES:]
    time = int.from_bytes(rest[:_TIME_BYTES], "big")
    return Claim(identity, time, to_text(rest[_TIME_BYTES:][:_NONCE_BYTES]), parts[_BEFORE:])
