# SPDX-License-Identifier: Apache-2.0
"""Storage that lasts as long as its process: for tests, and for federations simulated in one process.

It keeps what rounds to come can ask for: thousands of them take no more memory than a few.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from edgefl.server_stub.aggregators import Verdict
from edgefl.server_stub.clock import Moment
from edgefl.server_stub.downlink import CHAIN, Link
from edgefl.server_stub.evaluation.memory import MemoryRecords
from edgefl.server_stub.identity.memory import MemoryRegister
from edgefl.server_stub.registry.memory import MemoryRecords as Decisions
from edgefl.server_stub.rounds import Place, Round
from edgefl.server_stub.selection import Candidate, labels_of
from edgefl.server_stub.storage import other_model
from edgefl.server_stub.terms import Terms
from edgefl.server_stub.values import Head, Publication, Traffic, Update, Version, became, came_to
from edgefl.wire import CheckIn, Participant, Refusals, RoundInfo

_STANDINGS = 2
"""Versions whose standing is kept; the next step starts from the newest."""


@dataclass
class _Sent:
    digest: str
    frame: bytes
    size: int
    loss: float | None
    weight: float
    base: int


@dataclass
class _Record:
    """One round: its state when it opened, and what came since."""

    state: Round
    opened_at: float
    places: dict[str, tuple[str, Place, int]] = field(default_factory=dict)
    declined: dict[str, str] = field(default_factory=dict)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    sent: dict[str, _Sent] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    late: dict[str, _Sent] = field(default_factory=dict)
    """What its places sent that counts in a later round."""

    def count(self, t: Traffic) -> None:
        self.traffic = Traffic(self.traffic.up + t.up, self.traffic.down + t.down)

    def now(self) -> Round:
        """The round as it stands."""
        places = {
            device: replace(place, declined=key in self.declined)
            for key, (device, place, _) in self.places.items()
        }
        updates = {key: sent.digest for key, sent in self.sent.items()}
        full = len(updates) >= self.state.plan.goal
        return replace(self.state, places=places, updates=updates, full=full)

    def info(self, version: int | None = None, closed_at: float | None = None) -> RoundInfo:
        weights = [sent.weight for sent in self.sent.values()]
        losses = [w * (s.loss or 0.0) for w, s in zip(weights, self.sent.values(), strict=True)]
        known = any(s.loss is not None for s in self.sent.values())
        return RoundInfo(
            round=self.state.number,
            state=came_to(closed_at, version),
            base_version=self.state.base_version,
            version=version,
            goal=self.state.plan.goal,
            minimum=self.state.plan.minimum,
            assigned=len(self.places),
            declined=len(self.declined),
            updates=len(self.sent),
            loss=math.fsum(losses) / math.fsum(weights) if known else None,
            extensions=self.state.extensions,
            opened_at=self.opened_at,
            deadline=self.state.deadline,
            closed_at=closed_at,
            frame_bytes=sum(s.size for s in self.sent.values()),
            bytes_up=self.traffic.up,
            bytes_down=self.traffic.down,
            refused=self.refusals(),
            bounded=len(self.verdicts),
            missing=",".join(self.now().missing()),
        )

    def refusals(self) -> tuple[Refusals, ...]:
        """Refused updates by reason."""
        total = Counter[str]()
        for (_, reason), count in self.refused.items():
            total[reason] += count
        return tuple(Refusals(reason, total[reason]) for reason in sorted(total))

    def participant(self, key: str, engine: str, closed: bool) -> Participant:
        """What became of a place."""
        device, _, examples = self.places[key]
        sent = self.sent.get(key) or self.late.get(key)
        refused = sorted(r for name, r in self.refused if name == device)
        state = became(sent is not None, key in self.declined, bool(refused), closed)
        verdict = self.verdicts.get(key, Verdict(1.0, ", ".join(refused)))
        reason = self.declined[key] if state == "declined" else verdict.reason
        size, loss = (sent.size, sent.loss) if sent else (0, None)
        return Participant(device, engine, examples, state, size, loss, reason, verdict.counted)


class MemoryStore:
    """See `Storage`. Places are remembered of rounds that may still get updates, versions of the last few."""

    def __init__(self) -> None:
        self._versions: dict[int, Version] = {}
        self._registry = Decisions(self._versions)
        self._first, self._schema, self._model = 0, "", ""
        self._federation = secrets.token_hex(8)
        self._register, self._evaluations = MemoryRegister(self._last_seen), MemoryRecords()
        self._head = Head()
        self._alive: Moment | None = None
        self._engines: dict[str, str] = {}
        self._seen: dict[str, tuple[CheckIn, float]] = {}
        self._served: dict[str, float] = {}
        self._closed: list[RoundInfo] = []
        self._terms: list[Terms] = []
        self._record: _Record | None = None
        self._past: list[_Record] = []

    shared = False

    def close(self) -> None:
        """Nothing to close."""

    def own(self) -> None:
        """Nobody else can reach it."""

    @contextlib.contextmanager
    def event(self) -> Iterator[Head]:
        yield self._head

    def head(self) -> Head:
        return self._head

    def put_head(self, head: Head, moment: Moment) -> None:
        self._head, self._alive = head, moment

    def last_alive(self) -> Moment | None:
        return self._alive

    def closing(self, number: int) -> AbstractContextManager[bool]:
        return contextlib.nullcontext(True)

    def found(self, schema_id: str, model: str, first: Version, at: float) -> None:
        if not self._versions:
            self._schema, self._model = schema_id, model
            self._first = first.number
            self.put_version(first, at)
        elif schema_id != self._schema:
            raise other_model(self._model, self._schema, model, schema_id)

    def federation(self) -> str:
        return self._federation

    def register(self) -> MemoryRegister:
        return self._register

    def evaluations(self) -> MemoryRecords:
        return self._evaluations

    def registry(self) -> Decisions:
        return self._registry

    # -- devices, places, updates

    def put_device(self, message: CheckIn, at: float) -> None:
        self._engines[message.device] = message.engine
        self._seen[message.device] = message, at

    def _last_seen(self, device: str) -> float | None:
        return self._seen[device][1] if device in self._seen else None

    def candidates(self, since: float) -> list[Candidate]:
        return [
            Candidate(m.device, m.examples, self._served.get(m.device), labels_of(m.engine, m.labels))
            for m, at in self._seen.values()
            if at >= since
        ]

    def put_place(self, number: int, device: str, place: Place, examples: int) -> None:
        record = self._open(number)
        record.places[place.id] = (device, place, examples)
        self._served[device] = place.at
        record.declined.pop(place.id, None)
        late = record.state.behind.get(device)
        if late is not None and late.id not in record.sent:
            self._drop(record, device)

    def give_back(self, assignment: str, reason: str) -> None:
        for record in self._records():
            if assignment in record.places:
                record.declined[assignment] = reason
            for device in [d for d, late in record.state.behind.items() if late.id == assignment]:
                self._drop(record, device)

    def put_update(
        self,
        number: int,
        assignment: str,
        digest: str,
        frame: bytes,
        loss: float | None,
        at: float,
        t: Traffic,
    ) -> None:
        record = self._open(number)
        owner = next(r for r in self._records() if assignment in r.places)
        weight, base = float(owner.places[assignment][2]), owner.state.base_version
        sent = record.sent[assignment] = _Sent(digest, frame, len(frame), loss, weight, base)
        if owner is not record:
            owner.late[assignment] = sent
        record.count(t)

    def digest_of(self, number: int, assignment: str) -> str | None:
        record = self._recent(number)
        sent = record and (record.sent.get(assignment) or record.late.get(assignment))
        return sent.digest if sent else None

    def owner_of(self, number: int, assignment: str) -> str | None:
        record = self._recent(number)
        return record.places[assignment][0] if record and assignment in record.places else None

    def has_round(self, number: int) -> bool:
        return 1 <= number <= len(self._closed) + (self._record is not None)

    def updates_of(self, number: int) -> list[Update]:
        record = self._open(number)
        found = [Update(s.digest, s.weight, key, s.base) for key, s in record.sent.items()]
        return sorted(found, key=lambda update: (update.digest, update.weight, update.assignment))

    def frame(self, assignment: str) -> bytes:
        assert self._record is not None  # the coordinator asks about the open round only
        return self._record.sent[assignment].frame

    def put_refusal(self, number: int, assignment: str, reason: str) -> str:
        record = self._recent(number)
        device = record.places[assignment][0] if record and assignment in record.places else ""
        if record is None and not self.has_round(number):
            record = self._record or self._last
        if record is not None:
            record.refused[device, reason] += 1
        if record is not None and record is self._last:
            self._closed[-1] = replace(self._closed[-1], refused=record.refusals())
        return device

    # -- rounds

    def open_round(self, state: Round, at: float) -> None:
        self._record = _Record(state, at)

    def put_deadline(self, state: Round) -> None:
        record = self._open(state.number)
        record.state = replace(record.state, deadline=state.deadline, extensions=state.extensions)

    def close_round(
        self,
        number: int,
        made: Version | None,
        verdicts: Mapping[str, Verdict],
        following: Round | None,
        at: float,
        t: Traffic,
    ) -> None:
        record = self._open(number)
        record.verdicts = verdicts
        record.count(t)
        self._closed.append(record.info(None if made is None else made.number, at))
        if record.state.terms is not None and made is not None:
            self._terms.append(record.state.terms)
        for sent in record.sent.values():
            sent.frame = b""
        self._past = [record, *self._past][: 1 + record.state.plan.staleness]
        self._record = None if following is None else _Record(following, at)
        if made is not None:
            self.put_version(made, at)

    def current_round(self) -> Round | None:
        return None if self._record is None else self._record.now()

    def rounds_done(self) -> int:
        return len(self._closed)

    def terms(self, number: int) -> Terms | None:
        record = self._recent(number)
        return None if record is None else record.state.terms

    def closed_terms(self) -> list[Terms]:
        return list(self._terms)

    def put_draw(self, state: Round) -> None:
        record = self._open(state.number)
        record.state = replace(record.state, plan=state.plan, terms=state.terms)

    def round_infos(self, number: int | None = None) -> list[RoundInfo]:
        found = [*self._closed, *([] if self._record is None else [self._record.info()])]
        return found if number is None else found[number - 1 : number]

    def participants(self, number: int) -> tuple[Participant, ...]:
        record = self._recent(number)
        if record is None:
            return ()
        order = sorted(record.places, key=lambda key: (record.places[key][1].at, record.places[key][0]))
        closed = record is self._last
        return tuple(record.participant(key, self._engines[record.places[key][0]], closed) for key in order)

    def count_devices(self) -> int:
        return len(self._engines)

    # -- versions

    def prune(self, keep: int) -> None:
        """Only what rounds to come can ask for is here at all."""

    def put_version(self, made: Version, at: float) -> None:
        self._registry.add(made, at)
        self._versions[made.number] = made
        gone = made.number - CHAIN - 1
        if gone != self._first and not self._registry.stays(gone):
            self._versions.pop(gone, None)
        old = self._versions.get(made.number - _STANDINGS)
        if old is not None and old.publication is not None:
            bare = replace(old.publication, standing=None)
            self._versions[old.number] = replace(old, publication=bare)

    def newest_version(self) -> Version:
        return self._versions[self.newest_number()]

    def newest_number(self) -> int:
        return max(self._versions)

    def first_version(self) -> int:
        return self._first

    def publication(self, version: int) -> Publication | None:
        found = self._versions.get(version)
        return None if found is None else found.publication

    def links(self, after: int, upto: int) -> list[Link]:
        found = (self.publication(number) for number in range(after + 1, upto + 1))
        return [made.link for made in found if made is not None]

    def parameters(self, version: int) -> bytes | None:
        found = self._versions.get(version)
        return None if found is None else found.parameters

    # -- inside

    def _open(self, number: int) -> _Record:
        record = self._record
        assert record is not None and record.state.number == number  # the coordinator asks about no other
        return record

    def _recent(self, number: int) -> _Record | None:
        return next((r for r in self._records() if r.state.number == number), None)

    @property
    def _last(self) -> _Record | None:
        return self._past[0] if self._past else None

    def _records(self) -> list[_Record]:
        return [*([] if self._record is None else [self._record]), *self._past]

    @staticmethod
    def _drop(record: _Record, device: str) -> None:
        behind = {name: late for name, late in record.state.behind.items() if name != device}
        record.state = replace(record.state, behind=behind)
