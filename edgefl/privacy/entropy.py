# SPDX-License-Identifier: Apache-2.0
"""Random bytes for noise and for secret draws. NumPy's generators can be predicted and never make noise."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

Entropy = Callable[[int], bytes]
"""Gives so many random bytes, others every time."""

SYSTEM: Entropy = os.urandom
"""The operating system's cryptographic generator."""


class Keystream:
    """The same bytes for the same key, from SHAKE-256 (FIPS 202): for simulations that can be repeated.

    As hard to predict as the key; a federation of real people takes `SYSTEM`.
    """

    def __init__(self, key: bytes) -> None:
        self._key, self._calls = key, 0

    def __call__(self, count: int) -> bytes:
        self._calls += 1
        # Of fixed length in front, so that no two keys and calls are the same message.
        message = len(self._key).to_bytes(8, "little") + self._key + self._calls.to_bytes(8, "little")
        return hashlib.shake_256(message).digest(count)
