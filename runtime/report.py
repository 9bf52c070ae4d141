# SPDX-License-Identifier: Apache-2.0
"""What a device tells of a round."""

from __future__ import annotations

from dataclasses import dataclass

from edgefl.runtime.delegates import Placement


@dataclass(frozen=True)
class RoundReport:
    """What became of one round on this device.

    Attributes:
        round: its number.
        base_version: version of the parameters training started from.
        accepted: the server has the update.
        duplicate: it had it before; an answer was lost on the way.
        loss: mean training loss, None where training did not finish.
        frame_bytes: length of the update's frame, 0 without one.
        bytes_up: bodies sent for the round.
        bytes_down: bodies received for the round.
        seconds: time training and encoding took.
        error: why no update counts, empty where one does.
        placements: which graph ran where; empty for an update left over from an earlier run.
    """

    round: int
    base_version: int
    accepted: bool
    duplicate: bool = False
    loss: float | None = None
    frame_bytes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    error: str = ""
    placements: tuple[Placement, ...] = ()
