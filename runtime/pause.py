# SPDX-License-Identifier: Apache-2.0
"""Why a device stops for now, and who is asked: the seam between training and whatever decides when to train.

It is asked before every request and before every step, so an answer must be cheap: whoever reads batteries
and networks keeps what they said for a second or so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgefl.runtime.checkpoint import Checkpoint


@dataclass(frozen=True)
class Pause:
    """What keeps a device from going on.

    Attributes:
        reason: for people, such as "not charging".
        retry_s: seconds after which asking again may help.
    """

    reason: str
    retry_s: float = 60.0


MayGoOn = Callable[[], Pause | None]
"""None where a device may go on."""


def always() -> None:
    """A device that nothing keeps from training."""


class Interrupted(Exception):
    """Training stopped between two steps because it was told to.

    Attributes:
        checkpoint: where it goes on; None where the engine cannot say, so that the round starts over.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        super().__init__("training was interrupted")
        self.checkpoint = checkpoint
