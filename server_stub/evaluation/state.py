# SPDX-License-Identifier: Apache-2.0
"""The evaluation of one version as a pure state machine, and what the answers of many devices amount to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from edgefl.errors import Refused


@dataclass(frozen=True)
class Seat:
    """One device's place.

    Attributes:
        id: the assignment's id.
        digest: of its answer, empty before it came.
        void: it could measure nothing, so that another device may.
    """

    id: str
    digest: str = ""
    void: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one version.

    Attributes:
        version: which one.
        places: devices that are to measure it.
        until: seconds since the epoch, after which nothing counts any more.
        most: examples a device may measure it on.
        seats: by device.
        closed: nothing more is taken.
    """

    version: int
    places: int
    until: float
    most: int
    seats: Mapping[str, Seat] = field(default_factory=dict)
    closed: bool = False

    @property
    def full(self) -> bool:
        """Whether every answer is there."""
        return sum(bool(seat.digest) and not seat.void for seat in self.seats.values()) >= self.places

    def room(self, at: float) -> int:
        """How many more devices may be asked."""
        taken = sum(not seat.void for seat in self.seats.values())
        return max(0, self.places - taken) if not self.closed and at < self.until else 0

    def waits_for(self, device: str, at: float) -> bool:
        """Whether a device may answer: it is asked, or can be."""
        mine = self.seats.get(device)
        return self.room(at) > 0 if mine is None else not mine.digest and not self.closed and at < self.until

    def seated(self, device: str, assignment: str) -> Evaluation:
        """With a place for a device; the same where it has one, for its answer was lost or it began anew."""
        if device in self.seats:
            return self
        return replace(self, seats={**self.seats, device: Seat(assignment)})

    def expects(self, assignment: str, name: str, examples: int, at: float, device: str | None) -> str | None:
        """The device whose answer is new, None where the same one was here before.

        Args:
            name: digest of the answer.
            device: who sends it, None where that is not known.

        Raises:
            Refused: `unknown-assignment`, `already-sent-different`, `evaluation-closed` or
                `too-many-examples`.
        """
        owner = next((known for known, seat in self.seats.items() if seat.id == assignment), None)
        if owner is None or device not in (owner, None):
            raise Refused(
                404,
                "unknown-assignment",
                f"version {self.version} has no assignment {assignment}",
            )
        known = self.seats[owner].digest
        if known == name:
            return None
        if known:
            raise Refused(
                409, "already-sent-different", f"assignment {assignment} has answered otherwise before"
            )
        if self.closed or at >= self.until:
            raise Refused(409, "evaluation-closed", f"version {self.version} has been measured")
        if examples > self.most:
            raise Refused(
                422, "too-many-examples", f"measured on {examples} examples, allowed are {self.most}"
            )
        return owner

    def answered(self, device: str, digest: str, void: bool) -> Evaluation:
        """With the answer of a device."""
        seat = replace(self.seats[device], digest=digest, void=void)
        return replace(self, seats={**self.seats, device: seat})


@dataclass(frozen=True)
class Answer:
    """What one device found."""

    examples: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Found:
    """What the answers of many devices amount to; see `wire.EvaluationInfo`."""

    devices: int = 0
    examples: int = 0
    loss: float | None = None
    median_loss: float | None = None
    accuracy: float | None = None


def found(answers: Sequence[Answer]) -> Found:
    """The same bits in whatever order they came: `fsum` rounds once, at the end."""
    if not answers:
        return Found()
    rated = [(a.examples, a.accuracy) for a in answers if a.accuracy is not None]
    examples, counted = sum(a.examples for a in answers), sum(n for n, _ in rated)
    return Found(
        len(answers),
        examples,
        math.fsum(a.examples * a.loss for a in answers) / examples,
        median(a.loss for a in answers),
        math.fsum(n * rate for n, rate in rated) / counted if rated else None,
    )
