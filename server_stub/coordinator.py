# SPDX-License-Identifier: Apache-2.0
"""The server without HTTP: one open round, kept in step with the store. Safe to call from many threads.

Every event goes through the state machine first, then to disk, then into memory; only then is it answered.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from edgefl.bundle import Bundle
from edgefl.bundle.missing import check_whole
from edgefl.delta import SparseDelta
from edgefl.delta.asked import check_payload
from edgefl.errors import Refused, StoreError
from edgefl.parameters import Schema
from edgefl.plain import Quoted
from edgefl.privacy.entropy import SYSTEM, Entropy
from edgefl.server_stub.aggregate import digest
from edgefl.server_stub.aggregators import Contribution, Gathered, Verdict, discount
from edgefl.server_stub.aggregators.bounds import most_weight
from edgefl.server_stub.budget import Budget, draw_of
from edgefl.server_stub.checks import Checks, reported_loss
from edgefl.server_stub.clock import ServerClock
from edgefl.server_stub.decoded import Decoded
from edgefl.server_stub.evaluation.desk import Desk
from edgefl.server_stub.present import Present
from edgefl.server_stub.registry.office import Registry
from edgefl.server_stub.rounds import (
    Accept,
    Assign,
    Behind,
    GiveBack,
    Place,
    Round,
    Tick,
    apply,
    check_accept,
)
from edgefl.server_stub.selection import labels_of, wanted
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.shelf import Shelf
from edgefl.server_stub.storage import Storage
from edgefl.server_stub.terms import Terms
from edgefl.server_stub.values import Closing, Traffic, Version
from edgefl.wire import Accepted, CheckIn, CheckInAnswer, Participants, RoundInfo, Status, Task

log = logging.getLogger("edgefl.server")
_LATER = 503
"""Status of a refusal that only asks for patience."""
_NOTED_S = 60.0
"""How old a device's `last_seen` may be while it waits."""
_KNOWN = 1 << 16
"""Devices whose last check-in is remembered."""


def _no_traffic() -> Traffic:
    return Traffic()


def _database(settings: Settings) -> Storage:
    from edgefl.server_stub.store import Store

    return Store(settings.database_url())


class Coordinator:
    """Runs the rounds of one model.

    Attributes:
        federation: tells these rounds from all others.
        register: who is enrolled.
        evaluations: where devices measure versions.
        registry: where administrators decide about versions.
        on_closed: called with each round that this coordinator has closed, and not to be kept long.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Storage | None = None,
        traffic: Callable[[], Traffic] = _no_traffic,
        clock: Callable[[], float] | None = None,
        entropy: Entropy = SYSTEM,
    ) -> None:
        """Open bundle and database and go on where the database left off.

        Args:
            store: in place of the database of the settings.
            traffic: bytes at the socket since the process started.
            clock: seconds since the epoch, in place of this machine's clocks.
            entropy: what draws and noise of private rounds come from.

        Raises:
            BundleError, StoreError: the bundle or the database cannot be used, or do not belong together, or
                another server uses the database.
            OptionError: no update of this model fits the payload.
        """
        self.settings = settings
        self.bundle = Bundle.open(settings.bundle)
        check_whole(self.bundle.manifest)
        self._schema: Schema = self.bundle.schema()
        check_payload(settings.training.coding, self._schema)
        self._traffic, self._counted = traffic, traffic()
        self._closing = threading.Lock()
        self.on_closed: list[Callable[[Closing], None]] = []
        self._entropy, self._drawing = entropy, settings.drawing(entropy)
        self._known: dict[str, tuple[CheckIn, float]] = {}
        self._store = store or _database(settings)
        try:
            self._open(clock)
        except BaseException:
            self._store.close()
            raise

    def _open(self, clock: Callable[[], float] | None) -> None:
        self._store.own()
        last = self._store.last_alive()
        self._clock = ServerClock(last) if clock is None else ServerClock(last, clock, clock)
        self.shelf = Shelf(self._store, self.bundle, self.settings, self._clock(), self._entropy)
        self.bundle = self.shelf.as_founded(self.bundle)
        self.federation, self.register = self._store.federation(), self._store.register()
        self._present = Present(self._store, self._clock)
        self.registry = Registry(
            self._store, self._present, self.shelf, self.settings, self._end_on, self._open_next
        )
        self.evaluations = Desk(
            self._store.evaluations(),
            self._present,
            self.settings,
            self.shelf,
            self.federation,
            self._clock,
            self.registry.judge,
        )
        self._decoded = Decoded()
        self._budget = Budget(self._store, self._drawing.poisson, self.settings)
        self._start()

    def close(self) -> None:
        self._store.close()

    # -- what devices ask

    def check_in(self, message: CheckIn) -> CheckInAnswer:
        """A place in the current round if there is one for the device, with what to do there.

        Raises:
            Refused: `wrong-schema` or `not-a-party`.
        """
        parties = self.settings.party_names
        if parties and message.device not in parties:
            raise Refused(403, "not-a-party", f"{message.device} is none of the parties of these rounds")
        if message.schema != self._schema.id.hex():
            raise Refused(
                409, "wrong-schema", f"device has schema {message.schema}, the model {self._schema.id.hex()}"
            )
        if (answer := self._at_once(message)) is not None:
            return answer
        with self._present.event() as at:
            self._pass_time(at)
            self._store.put_device(message, at)
            self._remember(message, at)
            before = self._present.round
            fitting = wanted(labels_of(message.engine, message.labels), self._drawing.only)
            if fitting and (evaluation := self.evaluations.task(message, at)) is not None:
                return CheckInAnswer(evaluation=evaluation)
            if before is None:
                return self._nothing()
            if not fitting:
                return self._later()
            if (moment := self._drawing.moment(before)) is not None and at < moment:
                return self._later(moment - at)
            after = apply(Assign(message.device, secrets.token_hex(16), at), before)
            if after is before:
                return self._later()
            place = after.places[message.device]
            examples = self._drawing.weight(message.examples)
            self._store.put_place(after.number, message.device, place, examples)
            self._present.round = after
            return CheckInAnswer(self._task(after, place, at))

    def _at_once(self, message: CheckIn) -> CheckInAnswer | None:
        """What a device known of late is told without a transaction where there is no work for it."""
        current, at = self._present.glance(), self._clock()
        known, noted = self._known.get(message.device, (None, 0.0))
        if known != message or at - noted > _NOTED_S or self.evaluations.asks(message):
            return None
        if current is None:
            return self._nothing()
        idle = at < current.deadline and apply(Assign(message.device, "", at), current) is current
        return self._later() if idle else None

    def _remember(self, message: CheckIn, at: float) -> None:
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[message.device] = message, at

    def _nothing(self) -> CheckInAnswer:
        """What is told where there is no round."""
        if not self._finished:
            return self._later()
        return CheckInAnswer(None, self.settings.retry_after_s, finished=True)

    def _later(self, seconds: float = 0.0) -> CheckInAnswer:
        """No work now, and none before so many seconds."""
        retry = max(seconds, self.settings.retry_after_s)
        return CheckInAnswer(None, retry, window_s=self.settings.pace_s)

    def accept(self, number: int, assignment: str, frame: bytes, device: str | None = None) -> Accepted:
        """Check and store an update. On return it is on disk and counts exactly once.

        Args:
            device: who sends it, None where that is not known.

        Raises:
            Refused: with the reason, which is logged and counted; the round is unharmed.
        """
        self._check_owner(number, assignment, device)
        try:
            return self._accept(number, assignment, frame)
        except Refused as exc:
            if exc.status != _LATER:
                self.note_refusal(number, assignment, exc)
            raise

    def note_refusal(self, number: int, assignment: str, refusal: Refused) -> None:
        """Log and count an update that is refused, by `accept` or before its bytes were all here."""
        with self._present.event():
            device = self._store.put_refusal(number, assignment, refusal.reason)
        log.warning(
            "update refused: round=%(round)d device=%(device)s reason=%(reason)s detail=%(detail)s",
            {
                "event": "update-refused",
                "round": number,
                "device": device or "unknown",
                "reason": refusal.reason,
                "detail": Quoted(refusal.detail),
            },
        )

    def _accept(self, number: int, assignment: str, frame: bytes) -> Accepted:
        name = digest(frame)
        current = self._expecting(number, assignment, name)
        if current is None:
            return Accepted(True, duplicate=True)
        # Decoding is the slow part and needs no lock; the round is asked again after it.
        terms = self._terms(current) if current.number == number else self._terms_of(number)
        base = current.base_of(assignment)
        checks = Checks.of(self._schema, terms)
        update = checks.decode(frame, base)
        checks.check_origin(frame, self.shelf.origin(base))
        with self._present.event() as at:
            self._pass_time(at)
            current = self._expecting(number, assignment, name)
            if current is None:
                return Accepted(True, duplicate=True)
            pending = self._uncounted()
            after = apply(Accept(assignment, name, at), current)
            self._store.put_update(current.number, assignment, name, frame, self._loss(update), at, pending)
            self._count(pending)
            self._present.round = after
        self._decoded.put(current.number, name, update)
        return Accepted(True, duplicate=False)

    def expect(self, number: int, assignment: str) -> int:
        """The largest frame that may come for an assignment; Refused where none may."""
        current = self._present.glance()
        if current is not None and self._takes(current, number, assignment):
            if assignment not in current.updates:
                check_accept(Accept(assignment, "", self._clock()), current)
            return (self._terms(current) if current.number == number else self._terms_of(number)).max_bytes
        self._check_known(number, assignment)
        if self._store.digest_of(number, assignment) is None:
            raise _over(number)
        # The same bytes may come again, and are as long as they were.
        return self._terms_of(number).max_bytes

    def give_back(self, number: int, assignment: str, reason: str, device: str | None = None) -> None:
        """Take a place back from a device that cannot train. A round that is over takes it without effect."""
        self._check_owner(number, assignment, device)
        with self._present.event() as at:
            before = self._present.round
            if before is None or not self._takes(before, number, assignment):
                self._check_known(number, assignment)
                return
            after = apply(GiveBack(assignment, at), before)
            if after is not before:
                self._store.give_back(assignment, reason)
                self._present.round = after
                told = {"event": "place-declined", "round": number, "reason": reason}
                log.info("round %(round)d: a device declined: %(reason)s", told)

    def release(self, device: str, reason: str) -> None:
        """Take back the place of a device that is not to take part any more; what it has sent counts."""
        current = self._present.glance()
        place = current.places.get(device) if current is not None else None
        if current is not None and place is not None and place.id not in current.updates:
            self.give_back(current.number, place.id, reason)

    # -- time

    def tick(self) -> None:
        """Enforce the deadline, and aggregate the round if it is full.

        Raises:
            StoreLost: the database was deleted, or is another server's now.
        """
        current = self._present.glance(careful=True)
        due = current is not None and (
            (not current.full and self._clock() >= current.deadline)
            or self._drawing.due(current, self._clock())
        )
        if due or not self._present.beating():
            with self._present.event() as at:
                self._pass_time(at)
        with self._closing:
            full = self._present.round
            if full is not None and full.full:
                self._finish(full)

    def due(self) -> float:
        """Seconds until the current round needs a `tick`; infinity where none ever does."""
        current, at = self._present.round, self._clock()
        if current is None:
            return math.inf
        moment = self._drawing.moment(current)
        if moment is not None and at < moment:
            return min(moment, current.deadline) - at
        return 0.0 if current.full else max(0.0, current.deadline - at)

    @property
    def poll_s(self) -> float:
        """Longest time between two ticks: what another server did is seen by looking."""
        return 0.2 if self._store.shared else 1.0

    # -- looking

    @property
    def round_number(self) -> int | None:
        """Number of the current round, None when all are done."""
        current = self._present.round
        return None if current is None else current.number

    @property
    def places(self) -> int | None:
        """Devices that may start now; None where none ever will, as all rounds are done."""
        current = self._present.round
        if current is None and self._finished:
            return None
        return (0 if current is None else current.room()) + self.evaluations.room

    @property
    def offer(self) -> tuple[int, bool] | None:
        """The round's number and whether its places were drawn: a change is news for all who wait. None where
        no places are drawn."""
        current = self._present.round
        if current is None or not self._drawing.window:
            return None
        return current.number, self._drawing.moment(current) is None

    def now(self) -> float:
        """The server's time, seconds since the epoch."""
        return self._clock()

    def look(self) -> None:
        """See whether the storage answers; StoreLost where it is gone."""
        self._present.glance(careful=True)

    def rounds(self) -> list[RoundInfo]:
        """All rounds, oldest first, with bytes up to now."""
        return [self._live(info) for info in self._store.round_infos()]

    def participants(self, number: int) -> Participants:
        """The devices of a round; Refused (`unknown-round`) where there is none."""
        if not self._store.has_round(number):
            raise _no_round(number)
        return Participants(number, self._store.participants(number))

    def status(self) -> Status:
        current, total = self._present.glance(), self._traffic()
        found = self._store.round_infos(current.number) if current is not None else []
        return Status(
            model=self.bundle.manifest.name,
            schema=self._schema.id.hex(),
            version=self._store.newest_number(),
            rounds_done=self._store.rounds_done(),
            rounds_total=self.settings.rounds,
            finished=current is None and self._finished,
            round=self._live(found[0]) if found else None,
            devices=self._store.count_devices(),
            bytes_up=total.up,
            bytes_down=total.down,
            federation=self.federation,
            evaluation=self.evaluations.newest(),
            promoted=self._present.standing.promoted,
            held=self._present.standing.held,
            epsilon=self._budget.epsilon(),
            delta=self.settings.privacy_delta if self.settings.private else None,
        )

    # -- inside

    def _start(self) -> None:
        with self._present.event() as at:
            self._budget.check(self._present.round)
            self._open_next(at)
            self.evaluations.begin(self._store.newest_number(), at, certainly=not self._left)
        log.info(
            "model %(model)r: at round %(round)s of %(rounds)d",
            {
                "event": "rounds-resumed",
                "model": self.bundle.manifest.name,
                "round": self.round_number,
                "rounds": self.settings.rounds,
            },
        )

    @property
    def _left(self) -> bool:
        """Whether rounds are to come after those that are over."""
        return self._present.done < self.settings.rounds

    @property
    def _finished(self) -> bool:
        """Whether there will be no round, where there is none: they are not only held."""
        return not (self._present.standing.held and self._left)

    def _open_next(self, at: float) -> None:
        """Within an event: begin a round where none is open, and one is due."""
        if self._present.round is None:
            fresh = self._following(at, self._store.newest_number())
            if fresh is not None:
                self._store.open_round(fresh, at)
                self._present.round = fresh

    def _following(
        self, at: float, version: int, closing: Round | None = None, *, late: bool = True
    ) -> Round | None:
        """Within an event: the round after those that are over.

        Args:
            closing: the one that is just being closed.
            late: whether those still at work there may send what they make, where rounds take late updates.
        """
        if not self._left or self._present.standing.held or not self._budget.affordable(closing):
            return None
        number = self._present.done + 1
        terms = self.settings.terms(self._schema, number)
        return Round.open(number, version, self.settings.plan(), at, terms, closing if late else None)

    def _end_on(self, made: Version, why: str, at: float) -> None:
        """Within an event: leave what is under way for a version that no updates led to."""
        current, pending = self._present.round, self._uncounted()
        if current is None:
            self._store.put_version(made, at)
        else:
            void = {assignment: Verdict(0.0, why) for assignment in current.updates}
            self._present.done = current.number
            following = self._following(at, made.number, current, late=False)
            self._store.close_round(current.number, made, void, following, at, pending)
            self._count(pending)
            self._present.round = following
        self._store.prune(self.settings.keep_versions)
        self.evaluations.begin(made.number, at, certainly=True)

    def _terms(self, current: Round) -> Terms:
        return current.terms or self.settings.terms(self._schema, current.number)

    def _terms_of(self, number: int) -> Terms:
        """The terms of any round."""
        return self._store.terms(number) or self.settings.terms(self._schema, number)

    @staticmethod
    def _takes(current: Round, number: int, assignment: str) -> bool:
        """Whether what belongs to a place of some round is for the current one."""
        return current.number == number or isinstance(current.place_of(assignment), Behind)

    def _task(self, current: Round, place: Place, at: float) -> Task:
        terms = self._terms(current)
        return Task(
            assignment=place.id,
            round=current.number,
            base_version=current.base_version,
            schema=self._schema.id.hex(),
            training=terms.training,
            cohort=current.plan.goal,
            max_bytes=terms.max_bytes,
            # To the millisecond: more digits would only be bytes.
            deadline_s=round(max(0.0, current.deadline + current.plan.late_s - at), 3),
            fingerprint=self.shelf.fingerprint(current.base_version),
            federation=self.federation,
        )

    def _draw(self, at: float) -> None:
        """Within an event: give places to some of those who checked in while the round's window was open."""
        current = self._present.round
        if current is None or not self._drawing.due(current, at):
            return
        candidates = self._store.candidates(current.stretch_start)
        examples = {c.device: self._drawing.weight(c.examples) for c in candidates}
        after = self._drawing.drawn(current, candidates, at)
        if after.plan != current.plan:
            self._store.put_draw(after)
        for device, place in after.places.items():
            self._store.put_place(after.number, device, place, examples[device])
        self._present.round = after

    def _pass_time(self, at: float) -> None:
        """Within an event: what time does to the round."""
        self.evaluations.pass_time(at)
        self._draw(at)
        before = self._present.round
        after = before and apply(Tick(at), before)
        if after is None or after is before:
            return
        if not after.full:
            self._store.put_deadline(after)
            log.warning(
                "round %(round)d: %(updates)d of at least %(minimum)d updates at the deadline, waiting on",
                {
                    "event": "deadline-put-off",
                    "round": after.number,
                    "updates": len(after.updates),
                    "minimum": after.plan.minimum,
                },
            )
        self._present.round = after

    def _expecting(self, number: int, assignment: str, name: str) -> Round | None:
        """The round, where it waits for this update; None where it has it. Refused where neither is so."""
        current = self._present.glance()
        if current is not None and self._takes(current, number, assignment):
            return current if check_accept(Accept(assignment, name, self._clock()), current) else None
        self._check_known(number, assignment)
        stored = self._store.digest_of(number, assignment)
        if stored is None:
            raise _over(number)
        if stored != name:
            raise Refused(
                409, "already-sent-different", f"assignment {assignment} has sent other bytes before"
            )
        return None

    def _check_owner(self, number: int, assignment: str, device: str | None) -> None:
        """Whoever knows another device's assignment is told what one is told that makes one up."""
        if device is not None and self._store.owner_of(number, assignment) not in (device, None):
            raise Refused(404, "unknown-assignment", f"round {number} gave no assignment {assignment}")

    def _check_known(self, number: int, assignment: str) -> None:
        if not self._store.has_round(number):
            raise _no_round(number)
        if self._store.owner_of(number, assignment) is None:
            raise Refused(404, "unknown-assignment", f"round {number} gave no assignment {assignment}")

    def _finish(self, full: Round) -> None:
        with self._store.closing(full.number) as mine:
            if mine and self._is_current(self._present.glance(), full):
                self._close(full)

    def _close(self, full: Round) -> None:
        began = time.perf_counter()
        made, verdicts = self._void(full) if full.void else self._next_version(full)
        with self._present.event() as at:
            if not self._is_current(self._present.round, full):
                return
            pending = self._uncounted()
            version = full.base_version if made is None else made.number
            self._present.done = full.number
            following = self._following(at, version, full)
            self._store.close_round(full.number, made, verdicts, following, at, pending)
            self._store.prune(self.settings.keep_versions)
            self._count(pending)
            self._present.round = following
            self.evaluations.begin(version, at, certainly=not self._left)
        self._decoded.clear()
        self._tell(full, verdicts)
        if made is None:
            self._tell_abandoned(full)
            return
        closing = Closing(full.number, made.number, len(full.updates), time.perf_counter() - began)
        log.info(
            "round %(round)d closed with %(updates)d updates: version %(version)d",
            {"event": "round-closed", **vars(closing)},
        )
        for tell in self.on_closed:
            tell(closing)

    @staticmethod
    def _void(full: Round) -> tuple[None, Mapping[str, Verdict]]:
        """What an abandoned round leads to: nothing, and what it has does not count."""
        why = Verdict(0.0, f"the round was abandoned without {', '.join(full.missing())}")
        return None, dict.fromkeys(full.updates, why)

    @staticmethod
    def _tell_abandoned(void: Round) -> None:
        missing = ", ".join(void.missing())
        without = ", without %(missing)s" if missing else ""
        told = {
            "event": "round-abandoned",
            "round": void.number,
            "extensions": void.extensions,
            "missing": missing,
        }
        log.warning(f"round %(round)d abandoned after %(extensions)d extensions{without}", told)

    @staticmethod
    def _is_current(current: Round | None, full: Round) -> bool:
        """Whether no other server has closed a round meanwhile."""
        return current is not None and (current.number, current.updates) == (full.number, full.updates)

    def _next_version(self, full: Round) -> tuple[Version, Mapping[str, Verdict]]:
        updates = Gathered(self._schema.size, lambda: self._contributions(full))
        draw = draw_of(full)
        line = self.shelf.line if draw is None else self.shelf.line.with_noise(draw.noise)
        return line.next_version(self._store.newest_version(), updates)

    def _contributions(self, full: Round) -> Iterator[Contribution]:
        sent = self._store.updates_of(full.number)
        if len(sent) != len(full.updates):
            raise StoreError(
                f"round {full.number} took {len(full.updates)} updates, the database has {len(sent)} of them"
            )
        most = most_weight([u.weight for u in sent], self.settings.weight_bound)
        for u in sent:
            update = self._decoded.get(u.digest)
            if update is None:
                frame = self._store.frame(u.assignment)
                update = Checks.passed(self._schema, frame).decode(frame, u.base)
            yield Contribution(
                update, min(u.weight, most), u.assignment, discount(full.base_version - u.base)
            )

    def _loss(self, update: SparseDelta) -> float | None:
        """What a device says its loss was; in private rounds nobody keeps it, for it has no noise."""
        return None if self.settings.private else reported_loss(update)

    def _tell(self, closed: Round, verdicts: Mapping[str, Verdict]) -> None:
        """Name the devices whose updates did not count as they were."""
        names = {place.id: device for device, place in closed.places.items()}
        names.update({late.id: device for device, late in closed.behind.items()})
        for assignment, verdict in verdicts.items():
            log.warning(
                "update bounded: round=%(round)d device=%(device)s %(reason)s",
                {
                    "event": "update-bounded",
                    "round": closed.number,
                    "device": names[assignment],
                    "reason": verdict.reason,
                    "counted": verdict.counted,
                },
            )

    def _uncounted(self) -> Traffic:
        total = self._traffic()
        return Traffic(total.up - self._counted.up, total.down - self._counted.down)

    def _live(self, info: RoundInfo) -> RoundInfo:
        """A round that is not closed, with what only memory knows."""
        if info.closed_at is not None:
            return info
        current, pending = self._present.round, self._uncounted()
        full = current is not None and current.number == info.round and current.full
        return replace(
            info,
            state="full" if full else "open",
            bytes_up=info.bytes_up + pending.up,
            bytes_down=info.bytes_down + pending.down,
        )

    def _count(self, stored: Traffic) -> None:
        self._counted = Traffic(self._counted.up + stored.up, self._counted.down + stored.down)


def _no_round(number: int) -> Refused:
    return Refused(404, "unknown-round", f"there is no round {number}")


def _over(number: int) -> Refused:
    return Refused(409, "round-closed", f"round {number} closed without this update")
