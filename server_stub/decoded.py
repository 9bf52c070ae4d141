# SPDX-License-Identifier: Apache-2.0
"""Accepted updates as they were decoded to check them, so that closing a round decodes none again.

What is not here is decoded from the stored frame, to the same values: after a restart, beyond the room there
is, and where another server took it.
"""

from __future__ import annotations

from edgefl.delta import SparseDelta
from edgefl.server_stub.aggregators.updates import KEPT_BYTES


class Decoded:
    """Updates of one round by digest: the same bytes are the same update, whoever sent them."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._whole, self._left = kept_bytes, kept_bytes
        self._round, self._updates = 0, dict[str, SparseDelta]()

    def put(self, number: int, digest: str, update: SparseDelta) -> None:
        """Keep an update of a round, and none of another."""
        if number != self._round:
            self.clear()
            self._round = number
        size = update.indices.nbytes + update.values.nbytes
        if size <= self._left:
            self._left -= size
            self._updates[digest] = update

    def get(self, digest: str) -> SparseDelta | None:
        return self._updates.get(digest)

    def clear(self) -> None:
        self._left, self._updates = self._whole, {}
