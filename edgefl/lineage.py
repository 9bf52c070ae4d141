# SPDX-License-Identifier: Apache-2.0
"""Messages about the versions of a model: where each comes from, and what administrators decide about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgefl.message import Message, nested, several
from edgefl.rules import integer, optional, text
from edgefl.wire import (
    MAX_COUNT,
    MAX_VERSION,
    Count,
    EvaluationInfo,
    Flag,
    LossIfKnown,
    Moment,
    Text,
    Version,
)

VersionIfAny = Annotated[int | None, optional(integer(0, MAX_VERSION))]


@dataclass(frozen=True)
class VersionInfo(Message):
    """One version of the parameters.

    Attributes:
        version: its number.
        parent: the version before it; None for the first, and where an older release made it.
        restores: the version whose parameters it has again, None where it is no way back.
        round: that led to it, None for the first and for a way back outside of rounds.
        bundle: `Bundle.digest` of what the server that made it was started with, empty where not known.
        made_at: seconds since the epoch.
        updates: accepted in that round.
        loss: mean training loss of that round, None without any.
        evaluation: what devices found on examples they hold out, None where none were asked.
        promoted: it is what is pulled by default.
        pinned: it stays, however many newer ones there are.
        kept: its parameters are there.
    """

    version: Version
    parent: VersionIfAny
    restores: VersionIfAny
    round: Annotated[int | None, optional(integer(1, MAX_COUNT))]
    bundle: Annotated[str, text(r"([0-9a-f]{64})?")]
    made_at: Moment
    updates: Count
    loss: LossIfKnown
    evaluation: Annotated[EvaluationInfo | None, optional(nested(EvaluationInfo))]
    promoted: Flag
    pinned: Flag
    kept: Flag


@dataclass(frozen=True)
class Versions(Message):
    """All versions, oldest first."""

    versions: Annotated[tuple[VersionInfo, ...], several(VersionInfo, 1_000_000)]


@dataclass(frozen=True)
class Hold(Message):
    """No rounds are to begin, for a reason that people can read."""

    reason: Text = ""


@dataclass(frozen=True)
class Restored(Message):
    """A new version has the parameters of an old one."""

    version: Version
