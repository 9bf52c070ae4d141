# SPDX-License-Identifier: Apache-2.0
"""What devices are told with a place, and what their updates are held to. It belongs to the round: a server
that is started again with other settings judges nobody by what was not asked of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgefl.message import Message, nested
from edgefl.options import MAX_BYTES
from edgefl.rules import above, integer, optional
from edgefl.wire import Training


@dataclass(frozen=True)
class Terms(Message):
    """The terms of one round.

    Attributes:
        training: how devices train.
        max_nonzeros: the most elements an update may send.
        max_bytes: the largest frame.
        max_norm: the largest L2 norm of an update, None for no bound.
    """

    training: Annotated[Training, nested(Training)]
    max_nonzeros: Annotated[int, integer(1, MAX_BYTES)]
    max_bytes: Annotated[int, integer(1, MAX_BYTES)]
    max_norm: Annotated[float | None, optional(above(0.0))] = None
