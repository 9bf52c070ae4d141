# SPDX-License-Identifier: Apache-2.0
"""The messages of protocol version 1, as both sides use them, and the limits they agree on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from edgefl.delta.budget import warm_up
from edgefl.errors import OptionError, ProtocolError
from edgefl.message import Message, nested, several
from edgefl.options import (
    FIRST_DENSITY,
    LABELS,
    MAX_BYTES,
    PARTIES,
    CodingOptions,
    FitOptions,
    WhenOptions,
    nearest,
)
from edgefl.rules import flag, integer, number, optional, readable, text

MAX_JSON_BYTES = 64 * 1024
MAX_LIST_BYTES = 64 << 20
"""What a list of rounds or participants may take."""
MAX_COUNT = 2**31 - 1
MAX_VERSION = 2**32 - 1
MAX_TEXT = 1000
MOST_EPSILON = 1e9
"""Epsilon that stands for no privacy at all."""
MAX_LOSS = 1e30
"""Far beyond what training survives, and small enough to be averaged."""

_SMALLEST_LR = 1e-30

Name = Annotated[str, text(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")]
SchemaId = Annotated[str, text(r"[0-9a-f]{16}")]
Engine = Annotated[str, text(r"[ -~]{0,64}")]
Reason = Annotated[str, text(r"[a-z][a-z0-9-]{0,63}")]
AssignmentId = Annotated[str, text(r"[0-9a-f]{32}")]
Text = Annotated[str, readable(MAX_TEXT)]
Federation = Annotated[str, text(r"([0-9a-f]{16})?")]
Fingerprint = Annotated[str, text(r"([0-9a-f]{32})?")]
Flag = Annotated[bool, flag]
Number = Annotated[int, integer(1, MAX_COUNT)]
Count = Annotated[int, integer(0, MAX_COUNT)]
Version = Annotated[int, integer(0, MAX_VERSION)]
Bytes = Annotated[int, integer(0, MAX_BYTES)]
Loss = Annotated[float, number(-MAX_LOSS, MAX_LOSS)]
LossIfKnown = Annotated[float | None, optional(number(-MAX_LOSS, MAX_LOSS))]
Rate = Annotated[float | None, optional(number(0.0, 1.0))]
Seconds = Annotated[float, number(0.0, 1e9)]
Moment = Annotated[float, number(0.0, 1e12)]


@dataclass(frozen=True)
class CheckIn(Message):
    """A device offers to work.

    Attributes:
        device: the device's own name, the same every time.
        schema: id of the parameter schema its bundle has, 16 hexadecimal digits.
        engine: what will run the step, for the record only.
        examples: how many examples it holds, the weight of its update.
        labels: what a server may choose by, `name=value` with commas between; the target its engine runs is
            known without.
        held_out: how many more examples it holds out of training, to measure versions on.
    """

    device: Name
    schema: SchemaId
    engine: Engine
    examples: Number
    labels: Annotated[str, text(LABELS)] = ""
    held_out: Count = 0


@dataclass(frozen=True)
class Training(Message):
    """What a device does in a round.

    Attributes:
        fit: how it trains.
        coding: how its update is coded.
        when: what the device's state has to be, beyond what the device itself asks for.
    """

    fit: Annotated[FitOptions, nested(FitOptions)] = field(default_factory=FitOptions)
    coding: Annotated[CodingOptions, nested(CodingOptions)] = field(default_factory=CodingOptions)
    when: Annotated[WhenOptions, nested(WhenOptions)] = field(default_factory=WhenOptions)

    @classmethod
    def of(cls, **options: Any) -> Training:
        """One with options of both kinds by name; OptionError where there is none of a name."""
        fit = {name: value for name, value in options.items() if name in FitOptions.rules()}
        coding = {name: value for name, value in options.items() if name not in fit}
        unknown = [name for name in coding if name not in CodingOptions.rules()]
        if unknown:
            allowed = [*FitOptions.rules(), *CodingOptions.rules()]
            raise OptionError(f"Training has no option {unknown[0]!r}{nearest(unknown[0], allowed)}")
        return cls(FitOptions(**fit), CodingOptions(**coding))

    def in_round(self, number: int) -> Training:
        """The same for one round, counted from 1: a seed of its own, a rate that has decayed so far, and the
        density of the warm-up."""
        fit, coding = self.fit, self.coding
        first = max(FIRST_DENSITY, coding.density)
        if coding.warm_up:
            density = warm_up(number - 1, coding.warm_up, coding.density, first)
            coding = replace(coding, density=density)
        lr = fit.lr
        if lr is not None:
            lr = max(lr * fit.lr_decay ** (number - 1), min(lr, _SMALLEST_LR))
        return replace(self, fit=replace(fit, lr=lr, seed=(fit.seed + number - 1) % 2**63), coding=coding)


@dataclass(frozen=True)
class Task(Message):
    """One device's place in one round.

    Attributes:
        assignment: the place's id; whoever knows it may send its update.
        round: number of the round, from 1.
        base_version: version of the parameters to start from and to name in the frame.
        schema: id of the parameter schema, 16 hexadecimal digits.
        training: how to train.
        cohort: updates the round aims for; the more there are, the more noise one of them may carry.
        max_bytes: the largest frame the server takes.
        deadline_s: seconds from now until the round may close without this device.
        fingerprint: of the flat parameters of the base version, see `edgefl.delta.lattice`; a device that has
            it asks for the steps it lacks. Empty where versions are fetched whole.
        federation: tells this server's rounds from all others, so that a device keeps what it
            has of each apart.
    """

    assignment: AssignmentId
    round: Number
    base_version: Version
    schema: SchemaId
    training: Annotated[Training, nested(Training)]
    cohort: Number
    max_bytes: Annotated[int, integer(1, MAX_BYTES)]
    deadline_s: Seconds
    fingerprint: Fingerprint = ""
    federation: Federation = ""


@dataclass(frozen=True)
class EvaluationTask(Message):
    """One device's place among those that measure a version on the examples they hold out.

    Attributes:
        assignment: the place's id; whoever knows it may send its answer.
        base_version: the version to measure.
        max_examples: the most examples to measure it on.
        deadline_s: seconds from now until no answer is taken any more.
        when: what the device's state has to be meanwhile.
        fingerprint, federation: as in a `Task`.
    """

    assignment: AssignmentId
    base_version: Version
    max_examples: Number
    deadline_s: Seconds
    when: Annotated[WhenOptions, nested(WhenOptions)] = field(default_factory=WhenOptions)
    fingerprint: Fingerprint = ""
    federation: Federation = ""


@dataclass(frozen=True)
class Evaluated(Message):
    """How good a version is on the examples one device holds out: these three numbers, and nothing else.

    Attributes:
        examples: how many there were; 0 where nothing could be measured.
        loss: mean over them, None where nothing could be measured.
        accuracy: part predicted right, None where the loss has no such notion.
    """

    examples: Count = 0
    loss: LossIfKnown = None
    accuracy: Rate = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.loss is None) != (self.examples == 0) or (self.loss is None and self.accuracy is not None):
            raise ProtocolError("Evaluated has a loss where it has examples, and an accuracy beside it alone")


@dataclass(frozen=True)
class CheckInAnswer(Message):
    """What a device is to do next.

    Attributes:
        task: the work, or None where there is none now.
        retry_after_s: seconds to wait before the next check-in when there is no task.
        window_s: seconds after those within which a device picks its moment at random; 0 leaves it to the
            device.
        finished: the server has run all its rounds; there will be no more tasks.
        evaluation: a version to measure before anything else; there is no task then.
    """

    task: Annotated[Task | None, optional(nested(Task))] = None
    retry_after_s: Annotated[float, number(0.0, 86_400.0)] = 0.0
    finished: Flag = False
    window_s: Annotated[float, number(0.0, 86_400.0)] = 0.0
    evaluation: Annotated[EvaluationTask | None, optional(nested(EvaluationTask))] = None


@dataclass(frozen=True)
class Accepted(Message):
    """An update is stored.

    Attributes:
        accepted: always true; refusals are `Failure`.
        duplicate: the same bytes were stored before; they count once.
    """

    accepted: Flag
    duplicate: Flag


@dataclass(frozen=True)
class Decline(Message):
    """A device gives its place back, saying why."""

    reason: Text


@dataclass(frozen=True)
class Failure(Message):
    """Body of every answer of 400 and above.

    Attributes:
        reason: short and fixed, for programs, such as `unknown-round`.
        detail: for people.
    """

    reason: Reason
    detail: Text = ""


@dataclass(frozen=True)
class Refusals(Message):
    """How often updates were refused for one reason."""

    reason: Reason
    count: Count


@dataclass(frozen=True)
class RoundInfo(Message):
    """One round as the server tells it.

    Attributes:
        round: its number, from 1.
        state: `open`, `full` (enough updates, being aggregated), `closed`, or `abandoned` where its time was
            over without any update, or without one of its parties.
        base_version: version the devices start from.
        version: version the round produced, None while it is not closed and where it was abandoned.
        goal: number of updates that closes the round.
        minimum: number of updates that lets it close at its deadline.
        assigned: places given so far.
        declined: places given back.
        updates: updates accepted.
        loss: mean of the devices' training losses weighted by their examples, None without any.
        extensions: how often the deadline passed below the minimum and was put off.
        opened_at: seconds since the epoch.
        deadline: seconds since the epoch.
        closed_at: seconds since the epoch, None while open.
        frame_bytes: bytes of the accepted frames alone.
        bytes_up: bytes that arrived at the socket while the round was the current one.
        bytes_down: bytes that left the socket while the round was the current one.
        refused: updates refused, by reason. Those that name a round there is not count with the newest.
        bounded: accepted updates that were shortened or set aside when the round closed.
        missing: parties whose update is not here, with commas between them; empty where anybody takes part.
    """

    round: Number
    state: Annotated[str, text("open|full|closed|abandoned")]
    base_version: Version
    version: Annotated[int | None, optional(integer(0, MAX_VERSION))]
    goal: Number
    minimum: Number
    assigned: Count
    declined: Count
    updates: Count
    loss: LossIfKnown
    extensions: Count
    opened_at: Moment
    deadline: Moment
    closed_at: Annotated[float | None, optional(number(0.0, 1e12))]
    frame_bytes: Bytes
    bytes_up: Bytes
    bytes_down: Bytes
    refused: Annotated[tuple[Refusals, ...], several(Refusals, 100)] = ()
    bounded: Count = 0
    missing: Annotated[str, text(PARTIES)] = ""


@dataclass(frozen=True)
class Participant(Message):
    """A device in one round.

    Attributes:
        device: its own name.
        engine: what it said at its last check-in.
        examples: how many its update counts for.
        state: `working`; `accepted`, `declined` or `refused`; `absent` if it was still working at the end.
        bytes: size of its accepted frame, else 0.
        loss: its training loss as it told it, None where it did not.
        reason: why it declined, for which reasons updates of it were refused, or why its update does not
            count as it is.
        counted: the part of its accepted update that counts: less than 1 where it was shortened, 0 where it
            was set aside. What becomes of an update is decided when the round closes.
    """

    device: Name
    engine: Engine
    examples: Number
    state: Annotated[str, text("working|accepted|declined|refused|absent")]
    bytes: Bytes
    loss: LossIfKnown
    reason: Text
    counted: Annotated[float, number(0.0, 1.0)] = 1.0


@dataclass(frozen=True)
class Participants(Message):
    """The devices of one round, in the order they came."""

    round: Number
    participants: Annotated[tuple[Participant, ...], several(Participant, 1_000_000)]


@dataclass(frozen=True)
class Rounds(Message):
    """All rounds, oldest first."""

    rounds: Annotated[tuple[RoundInfo, ...], several(RoundInfo, 1_000_000)]


@dataclass(frozen=True)
class EvaluationInfo(Message):
    """How good one version is on the examples that devices hold out.

    Attributes:
        version: which one.
        state: `open` while answers are taken, then `closed`.
        wanted: devices that were to measure it.
        devices: those that did.
        examples: of all of them.
        loss: mean over these examples, None without any.
        median_loss: of the devices' own losses, which few devices that lie cannot move far.
        accuracy: mean over the examples, None without any or where the loss has no such notion.
        opened_at: seconds since the epoch.
        until: when no answer is taken any more.
    """

    version: Version
    state: Annotated[str, text("open|closed")]
    wanted: Number
    devices: Count
    examples: Annotated[int, integer(0, MAX_COUNT**2)]
    loss: LossIfKnown
    median_loss: LossIfKnown
    accuracy: Rate
    opened_at: Moment
    until: Moment


@dataclass(frozen=True)
class Evaluations(Message):
    """All versions that were to be measured, oldest first."""

    evaluations: Annotated[tuple[EvaluationInfo, ...], several(EvaluationInfo, 1_000_000)]


@dataclass(frozen=True)
class Status(Message):
    """The server at a glance.

    Attributes:
        model: name of the model in the bundle.
        schema: id of the parameter schema, 16 hexadecimal digits.
        version: newest version of the parameters.
        rounds_done: rounds closed.
        rounds_total: rounds the server is to run.
        finished: all rounds are done.
        round: the current round, None when finished.
        devices: devices that ever checked in.
        bytes_up: bytes received at the socket since the process started.
        bytes_down: bytes sent at the socket since the process started.
        federation: as in every `Task`.
        evaluation: the newest version that was to be measured, None without any.
        promoted: the version that is pulled by default, None where that is the newest.
        held: why no rounds begin; empty where they do.
        epsilon: what the versions so far tell of any one device at most, None where rounds are not private.
        delta: what that may fail to hold for.
    """

    model: Text
    schema: SchemaId
    version: Version
    rounds_done: Count
    rounds_total: Count
    finished: Flag
    round: Annotated[RoundInfo | None, optional(nested(RoundInfo))]
    devices: Count
    bytes_up: Bytes
    bytes_down: Bytes
    federation: Federation = ""
    evaluation: Annotated[EvaluationInfo | None, optional(nested(EvaluationInfo))] = None
    promoted: Annotated[int | None, optional(integer(0, MAX_VERSION))] = None
    held: Text = ""
    epsilon: Annotated[float | None, optional(number(0.0, MOST_EPSILON))] = None
    delta: Annotated[float | None, optional(number(0.0, 1.0))] = None

    @property
    def offered(self) -> int:
        """The version for whoever asks for none in particular."""
        return self.version if self.promoted is None else self.promoted
