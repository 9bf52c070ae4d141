# SPDX-License-Identifier: Apache-2.0
"""Which parameters an update starts from, in a byte of its frame that would say nothing else.

Versions of all federations count from the same number. A frame that was led from one server to another is
told apart by the parameters themselves, at no cost in bytes. It is a guard against mistakes: one in 255 gets
by, and whoever means to lie can stamp what it likes.
"""

from __future__ import annotations

import zlib

import numpy as np

from edgefl.delta.frame import CHECKSUM
from edgefl.delta.lattice import fingerprint, weights
from edgefl.parameters import Vector

_AT = 5
UNKNOWN = 0


def origin(vector: Vector) -> str:
    """The fingerprint of flat parameters as devices hold them."""
    return fingerprint(weights(vector, np.zeros(1)))


def stamp(base: str) -> int:
    """A number from 1 to 255 that follows from a fingerprint."""
    return 1 + int(base, 16) % 255


def stamped(frame: bytes, base: str) -> bytes:
    """The frame of an update that starts from the parameters of a fingerprint."""
    body = bytearray(frame[: -CHECKSUM.size])
    body[_AT] = stamp(base)
    return bytes(body) + CHECKSUM.pack(zlib.crc32(body))


def stamp_of(frame: bytes) -> int:
    """The stamp of a frame; `UNKNOWN` where its sender says nothing."""
    return frame[_AT]
