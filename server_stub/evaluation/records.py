# SPDX-License-Identifier: Apache-2.0
"""What the server remembers of evaluations: the seam to its storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgefl.server_stub.evaluation.state import Answer, Evaluation, Found, Seat
from edgefl.wire import EvaluationInfo


class Records(Protocol):
    """All evaluations of one server. Within an event of the storage, methods are part of its transaction."""

    def open(self, state: Evaluation, at: float) -> None:
        """Store one that begins, without seats."""
        ...

    def find(self, version: int) -> Evaluation | None: ...

    def newest(self) -> Evaluation | None:
        """The one of the newest version that has any."""
        ...

    def put_seat(self, version: int, device: str, seat: Seat, at: float) -> None:
        """Store a new seat of a device that has checked in."""
        ...

    def put_answer(self, assignment: str, digest: str, answer: Answer | None) -> None:
        """Store what a device found; None where it could measure nothing."""
        ...

    def answers(self, version: int) -> Sequence[Answer]:
        """Those of an evaluation that is not closed."""
        ...

    def close(self, version: int, result: Found) -> None:
        """Keep what the answers amount to, and forget who answered what."""
        ...

    def infos(self, version: int | None = None) -> list[EvaluationInfo]:
        """All of them with what was found so far, oldest first; or only one."""
        ...
