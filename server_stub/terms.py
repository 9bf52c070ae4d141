# SPDX-License-Identifier: Apache-2.0
"""What devices are told with a place, and what their updates are held to. It belongs to the round: a server
that is started again with other settings judges nobody by what was not asked of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgefl.message import Message, nested
from edgefl.options import MAX_BYTES
from edgefl.rules import above, flag, integer, number, optional
from edgefl.wire import Training


@dataclass(frozen=True)
class Draw(Message):
    """What was drawn for a round; kept with its terms.

    Attributes:
        noise: standard deviation over the most one device can do.
        rate: every device's chance.
        devices: how many checked in.
    """

    noise: Annotated[float, number(0.01, 1e4)]
    rate: Annotated[float, number(1e-9, 1.0)]
    devices: Annotated[int, integer(1, 2**31 - 1)]

    @property
    def empty(self) -> float:
        """The chance that nobody is drawn; then it is drawn anew."""
        return (1 - self.rate) ** self.devices


@dataclass(frozen=True)
class Terms(Message):
    """The terms of one round.

    Attributes:
        training: how devices train.
        max_nonzeros: the most elements an update may send.
        max_bytes: the largest frame.
        max_norm: the largest L2 norm of an update, None for no bound.
        private: what the versions tell of any one device is bounded.
        draw: how devices were drawn, where the round is private and they are.
    """

    training: Annotated[Training, nested(Training)]
    max_nonzeros: Annotated[int, integer(1, MAX_BYTES)]
    max_bytes: Annotated[int, integer(1, MAX_BYTES)]
    max_norm: Annotated[float | None, optional(above(0.0))] = None
    private: Annotated[bool, flag] = False
    draw: Annotated[Draw | None, optional(nested(Draw))] = None
