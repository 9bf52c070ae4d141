# SPDX-License-Identifier: Apache-2.0
"""Each signed request is taken once: nonces of the last minutes, in bounded memory."""

from __future__ import annotations

from edgefl.identity import WINDOW_S

MOST = 200_000
_SLOT_S = 60


class Nonces:
    """What was taken, by the minute it was signed in. No request from before `floor` is taken.

    Attributes:
        floor: seconds since the epoch; rises to make room, and starts above the past so that nothing taken
            before a restart is taken again.
    """

    def __init__(self, at: float, most: int = MOST) -> None:
        self.floor = int(at) + 1
        self._most, self._count = most, 0
        self._slots: dict[int, set[tuple[str, int, str]]] = {}

    def told(self, at: float) -> int:
        """The time to sign a request with so that it is taken."""
        return max(int(at), self.floor)

    def fresh(self, time: int, at: float) -> bool:
        """Whether a request signed at a time can be taken now at all."""
        return time >= self.floor and abs(time - at) <= WINDOW_S

    def take(self, identity: str, nonce: str, time: int, at: float) -> bool:
        """Take a request that is fresh; whether it had not been taken before."""
        self._forget(at)
        slot = self._slots.setdefault(time // _SLOT_S, set())
        if (identity, time, nonce) in slot:
            return False
        slot.add((identity, time, nonce))
        self._count += 1
        return True

    def __len__(self) -> int:
        return self._count

    def _forget(self, at: float) -> None:
        while self._slots:
            oldest = min(self._slots)
            end = (oldest + 1) * _SLOT_S
            if end > at - WINDOW_S and self._count < self._most:
                return
            self._count -= len(self._slots.pop(oldest))
            self.floor = max(self.floor, end)
