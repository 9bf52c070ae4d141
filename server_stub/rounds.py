# SPDX-License-Identifier: Apache-2.0
"""A round of federated learning as a pure state machine: `apply(event, state) -> state`.

A round gives places to devices, takes one update per place, and is *full* once it has its goal of updates, or
once its deadline passes with at least its minimum. Full rounds take nothing more and wait to be aggregated.

A deadline that passes below the minimum is put off by the round's duration, and every accepted update stays:
an acknowledged update always counts. Places given before the new stretch no longer hold others back, so that
devices which vanished are replaced; should they return after all, their place is still good while the round
is open. A round that is out of patience is full with whatever it has; one that has nothing is *void*: it is
abandoned, and the next one starts from the same version. So is one of named parties that lacks any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from edgefl.errors import OptionError, Refused
from edgefl.server_stub.terms import Terms


@dataclass(frozen=True)
class Plan:
    """What a round asks for.

    Attributes:
        goal: number of updates that fills the round.
        minimum: number of updates that fills it at its deadline.
        seconds: time from opening (or extension) to deadline.
        places: devices that may be at work at once, at least the goal; the surplus stands in for dropouts.
        staleness: versions an update may be behind; 0 is synchronous.
        patience: extensions after which it is full with what it has, if only nothing; None for no end of
            them.
        parties: who takes part, where that is fixed: then the round is full with all of them alone.
    """

    goal: int
    minimum: int
    seconds: float
    places: int
    staleness: int = 0
    patience: int | None = None
    parties: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.minimum <= self.goal <= self.places or not self.seconds > 0:
            raise OptionError(
                f"plan {self} is impossible: 1 <= minimum <= goal <= places and seconds > 0 are needed"
            )

    @property
    def late_s(self) -> float:
        """Seconds beyond the deadline in which an update may still count."""
        return self.staleness * self.seconds


@dataclass(frozen=True)
class Place:
    """One device's place.

    Attributes:
        id: the assignment's id.
        at: when the device last received it, seconds since the epoch.
        declined: the device gave it back.
    """

    id: str
    at: float
    declined: bool = False


@dataclass(frozen=True)
class Behind:
    """A device still at work on a place of an earlier round.

    Attributes:
        id: the assignment's id.
        base_version: of the parameters it started from.
    """

    id: str
    base_version: int


@dataclass(frozen=True)
class Round:
    """State of one open or full round.

    Attributes:
        number: from 1.
        base_version: version of the parameters that updates start from.
        plan: what the round asks for.
        deadline: seconds since the epoch.
        extensions: times the deadline was put off.
        places: device -> its place.
        updates: assignment id -> digest of the accepted frame.
        full: nothing more is taken; ready to aggregate, or to abandon where it is void.
        terms: what devices are told and held to; None where the server's present ones apply.
        behind: device -> its place in an earlier round, where it may still send.
    """

    number: int
    base_version: int
    plan: Plan
    deadline: float
    extensions: int = 0
    places: Mapping[str, Place] = field(default_factory=dict)
    updates: Mapping[str, str] = field(default_factory=dict)
    full: bool = False
    terms: Terms | None = None
    behind: Mapping[str, Behind] = field(default_factory=dict)

    @staticmethod
    def open(
        number: int,
        base_version: int,
        plan: Plan,
        at: float,
        terms: Terms | None = None,
        before: Round | None = None,
    ) -> Round:
        """A round that begins; `before` is the one that was full."""
        late = {} if before is None else before.left_behind(base_version, plan.staleness)
        return Round(number, base_version, plan, at + plan.seconds, terms=terms, behind=late)

    def left_behind(self, version: int, staleness: int) -> Mapping[str, Behind]:
        """Who is still at work when a version comes, and may be for so many versions."""
        if not staleness:
            return {}
        waiting = {d: p for d, p in self.places.items() if p.id not in self.updates and not p.declined}
        mine = {device: Behind(place.id, self.base_version) for device, place in waiting.items()}
        older = {device: late for device, late in self.behind.items() if late.id not in self.updates}
        everyone = {**older, **mine}
        return {d: late for d, late in everyone.items() if version - late.base_version <= staleness}

    def place_of(self, assignment: str) -> Place | Behind | None:
        everyone: list[Place | Behind] = [*self.places.values(), *self.behind.values()]
        return next((place for place in everyone if place.id == assignment), None)

    def base_of(self, assignment: str) -> int:
        """The version that a place's update starts from."""
        place = self.place_of(assignment)
        return place.base_version if isinstance(place, Behind) else self.base_version

    @property
    def void(self) -> bool:
        """Whether it is over without anything to aggregate."""
        return self.full and (not self.updates or bool(self.missing()))

    def missing(self) -> tuple[str, ...]:
        """Parties whose update is not here."""
        sent = {device for device, place in self.places.items() if place.id in self.updates}
        return tuple(name for name in self.plan.parties if name not in sent)

    @property
    def stretch_start(self) -> float:
        """When the current stretch began: the opening, or the last extension."""
        return self.deadline - self.plan.seconds

    def at_work(self) -> int:
        """Devices counted upon: places of the current stretch that are neither answered nor declined."""
        waiting = (p for p in self.places.values() if p.id not in self.updates and not p.declined)
        return sum(p.at >= self.stretch_start for p in waiting)

    def room(self) -> int:
        """How many more devices may start: places are for updates that are still to come."""
        taken = len(self.updates)
        if self.plan.staleness:
            taken = sum(place.id not in self.updates for place in self.behind.values())
        return 0 if self.full else max(0, self.plan.places - self.at_work() - taken)


@dataclass(frozen=True)
class Assign:
    """A device asks for a place; `assignment` is the id a new place would get."""

    device: str
    assignment: str
    at: float


@dataclass(frozen=True)
class Accept:
    """An update for a place arrives, already checked."""

    assignment: str
    digest: str
    at: float


@dataclass(frozen=True)
class GiveBack:
    """A device declines its place."""

    assignment: str
    at: float


@dataclass(frozen=True)
class Tick:
    """Time passes."""

    at: float


Event = Assign | Accept | GiveBack | Tick
V = TypeVar("V")


def apply(event: Event, state: Round) -> Round:
    """The round after an event. The same state comes back where the event changes nothing.

    Raises:
        Refused: `unknown-assignment`, `already-sent-different`, `declined` or `round-closed`.
    """
    if isinstance(event, Assign):
        return _assign(event, state)
    if isinstance(event, Accept):
        return _accept(event, state)
    if isinstance(event, GiveBack):
        return _give_back(event, state)
    return _tick(event, state)


def check_accept(event: Accept, state: Round) -> bool:
    """Whether an update would be new (True) or repeats the stored one (False); raises as `apply` does."""
    place = state.place_of(event.assignment)
    if place is None:
        raise Refused(
            404, "unknown-assignment", f"round {state.number} gave no assignment {event.assignment}"
        )
    stored = state.updates.get(event.assignment)
    if stored is not None and stored != event.digest:
        raise Refused(
            409, "already-sent-different", f"assignment {event.assignment} has sent other bytes before"
        )
    if stored is None and state.full:
        if state.plan.staleness:
            # The buffer after this one takes it, in a moment.
            raise Refused(503, "round-closing", f"round {state.number} is being closed; send it again")
        raise Refused(409, "round-closed", f"round {state.number} has all its updates")
    if stored is None and isinstance(place, Place) and place.declined:
        raise Refused(409, "declined", f"assignment {event.assignment} was given back")
    return stored is None


def _assign(event: Assign, state: Round) -> Round:
    before = state
    if state.plan.parties and event.device not in state.plan.parties:
        return state
    known = state.places.get(event.device)
    if known is None:
        # Who asks anew has given up what it was at.
        late = state.behind.get(event.device)
        if late is not None and late.id not in state.updates:
            state = replace(state, behind=_without(state.behind, event.device))
        fresh = Place(event.assignment, event.at)
        return replace(state, places=_with(state.places, event.device, fresh)) if state.room() else before
    if state.full or known.id in state.updates or (known.declined and known.at >= state.stretch_start):
        return state
    # Asking again renews the place: the answer was lost, the device restarted, or the deadline was put off.
    renewed = replace(known, at=event.at, declined=False)
    return replace(state, places=_with(state.places, event.device, renewed))


def _accept(event: Accept, state: Round) -> Round:
    if not check_accept(event, state):
        return state
    updates = _with(state.updates, event.assignment, event.digest)
    return replace(state, updates=updates, full=len(updates) >= state.plan.goal)


def _give_back(event: GiveBack, state: Round) -> Round:
    for device, place in state.places.items():
        if place.id != event.assignment:
            continue
        if place.declined or place.id in state.updates:
            return state
        return replace(state, places=_with(state.places, device, replace(place, declined=True)))
    for device, late in state.behind.items():
        if late.id == event.assignment:
            return (
                state if late.id in state.updates else replace(state, behind=_without(state.behind, device))
            )
    raise Refused(404, "unknown-assignment", f"round {state.number} gave no assignment {event.assignment}")


def _tick(event: Tick, state: Round) -> Round:
    if state.full or event.at < state.deadline:
        return state
    patience = state.plan.patience
    enough = state.plan.minimum if patience is None or state.extensions < patience else 0
    if len(state.updates) >= enough:
        return replace(state, full=True)
    return replace(state, deadline=event.at + state.plan.seconds, extensions=state.extensions + 1)


def _with(mapping: Mapping[str, V], key: str, value: V) -> Mapping[str, V]:
    return {**mapping, key: value}


def _without(mapping: Mapping[str, V], key: str) -> Mapping[str, V]:
    return {name: value for name, value in mapping.items() if name != key}
