# SPDX-License-Identifier: Apache-2.0
"""Ed25519 (RFC 8032). Verifying is plain Python: all it handles is public. Signing is `cryptography`'s.

A verification takes some milliseconds here: right for a bundle now and then on a device that has only the
standard library. A server that checks every request uses `cryptography` too.
"""

from __future__ import annotations

import hashlib
from typing import Any

from edgefl.errors import MissingDependency, OptionError

KEY_BYTES, SIGNATURE_BYTES = 32, 64

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)

_Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z."""

_ZERO: _Point = (0, 1, 1, 0)


def verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature is that of a message by a public key, as in RFC 8032, 5.1.7, without cofactor."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    key, committed = _point(public), _point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if key is None or committed is None or s >= _L:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    h = int.from_bytes(digest, "little") % _L
    return _equal(_times(s, _BASE), _add(committed, _times(h, key)))


def new_private() -> bytes:
    """A fresh private key, 32 bytes."""
    return bytes(_signing().Ed25519PrivateKey.generate().private_bytes_raw())


def public_of(private: bytes) -> bytes:
    """The public key of a private one."""
    return bytes(_private(private).public_key().public_bytes_raw())


def sign(private: bytes, message: bytes) -> bytes:
    """The 64 bytes of a signature."""
    return bytes(_private(private).sign(message))


def verifies_fast(public: bytes, message: bytes, signature: bytes) -> bool:
    """The same as `verifies` in a tenth of a millisecond, where `cryptography` is installed."""
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


def _add(a: _Point, b: _Point) -> _Point:
    left, right = (a[1] - a[0]) * (b[1] - b[0]) % _P, (a[1] + a[0]) * (b[1] + b[0]) % _P
    c, d = 2 * a[3] * b[3] * _D % _P, 2 * a[2] * b[2] % _P
    e, f, g, h = right - left, d - c, d + c, right + left
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(scalar: int, point: _Point) -> _Point:
    total = _ZERO
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point, scalar = _add(point, point), scalar >> 1
    return total


def _equal(a: _Point, b: _Point) -> bool:
    return (a[0] * b[2] - b[0] * a[2]) % _P == 0 and (a[1] * b[2] - b[1] * a[2]) % _P == 0


def _point(encoded: bytes) -> _Point | None:
    """The point that 32 bytes name (5.1.3), None where they name none."""
    y = int.from_bytes(encoded, "little")
    odd, y = y >> 255, y & (2**255 - 1)
    x = _x_of(y, odd) if y < _P else None
    return None if x is None else (x, y, 1, x * y % _P)


def _x_of(y: int, odd: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and odd):
        return None
    return _P - x if x & 1 != odd else x


def _base() -> _Point:
    y = 4 * pow(5, -1, _P) % _P
    x = _x_of(y, 0)
    assert x is not None  # RFC 8032's base point is on the curve
    return x, y, 1, x * y % _P


_BASE = _base()
