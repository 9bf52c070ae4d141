# SPDX-License-Identifier: Apache-2.0
"""What a device signs of a request, and the header that says so. docs/identity.md has the bytes."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from edgefl.identity.keys import Signer, from_text, identity_of, to_text

VERSION = "EDGEFL1"
WINDOW_S = 300
"""How far a request's time may be from the server's."""
TIME_HEADER = "edgefl-time"
"""The server's time in seconds, on refusals that signing again would mend."""
_NONCE_BYTES = 6
_CLAIM = re.compile(
    VERSION + r" ([0-9a-f]{16})\.(\d{1,12})\.([A-Za-z0-9_-]{8})\.([A-Za-z0-9_-]{43,86})", re.ASCII
)


@dataclass(frozen=True)
class Claim:
    """What a request says about who made it.

    Attributes:
        identity: 16 hexadecimal digits.
        time: seconds since the epoch.
        nonce: 8 characters.
        signature: 32 or 64 bytes.
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
    identity = identity_of(signer.scheme, signer.key)
    nonce = to_text(secrets.token_bytes(_NONCE_BYTES))
    message = canonical_request(method, target, deployment, identity, time, nonce, body)
    return f"{VERSION} {identity}.{time}.{nonce}.{to_text(signer.sign(message))}"


def read_claim(header: str) -> Claim | None:
    """What such a header claims; None where it is no such header."""
    found = _CLAIM.fullmatch(header)
    if found is None:
        return None
    identity, time, nonce, signature = found.groups()
    try:
        return Claim(identity, int(time), nonce, from_text(signature))
    except ValueError:
        return None
