# SPDX-License-Identifier: Apache-2.0
"""The server without HTTP: one open round, kept in step with the store. Safe to call from many threads.

Every event goes through the state machine first, then to disk, then into memory; only then is it answered.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from edgefl.bundle import Bundle
from edgefl.bundle.missing import check_whole
from edgefl.delta.asked import check_payload
from edgefl.errors import Refused
from edgefl.parameters import Schema
from edgefl.server_stub.aggregate import digest
from edgefl.server_stub.aggregators import Contribution, Gathered, Verdict
from edgefl.server_stub.checks import Checks, reported_loss
from edgefl.server_stub.rounds import Accept, Assign, GiveBack, Place, Round, Tick, apply, check_accept
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.shelf import Shelf
from edgefl.server_stub.storage import Storage
from edgefl.server_stub.terms import Terms
from edgefl.server_stub.values import Traffic, Version
from edgefl.wire import Accepted, CheckIn, CheckInAnswer, Participants, RoundInfo, Status, Task

log = logging.getLogger("edgefl.server")


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
    """

    def __init__(
        self,
        settings: Settings,
        *,
        store: Storage | None = None,
        traffic: Callable[[], Traffic] = _no_traffic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open bundle and database and go on where the database left off.

        Args:
            store: in place of the database of the settings.
            traffic: bytes at the socket since the process started.
            clock: seconds since the epoch.

        Raises:
            BundleError, StoreError: the bundle or the database cannot be used, or do not belong together.
            OptionError: no update of this model fits the payload.
        """
        self.settings = settings
        self.bundle = Bundle.open(settings.bundle)
        check_whole(self.bundle.manifest)
        self._schema: Schema = self.bundle.schema()
        check_payload(settings.training.coding, self._schema)
        self._traffic, self._clock = traffic, clock
        self._counted = traffic()
        self._lock, self._closing = threading.RLock(), threading.Lock()
        self._store = store or _database(settings)
        self.shelf = Shelf(self._store, self.bundle, settings, clock())
        self.bundle = self.shelf.as_founded(self.bundle)
        self.federation, self.register = self._store.federation(), self._store.register()
        self._round = self._store.current_round()
        self._start()

    def close(self) -> None:
        self._store.close()

    # -- what devices ask

    def check_in(self, message: CheckIn) -> CheckInAnswer:
        """A place in the current round if there is one for the device, with what to do there.

        Raises:
            Refused: `wrong-schema`.
        """
        if message.schema != self._schema.id.hex():
            raise Refused(
                409, "wrong-schema", f"device has schema {message.schema}, the model {self._schema.id.hex()}"
            )
        with self._lock:
            at = self._clock()
            self._pass_time(at)
            self._store.put_device(message, at)
            if self._round is None:
                return CheckInAnswer(None, self.settings.retry_after_s, finished=True)
            after = apply(Assign(message.device, secrets.token_hex(16), at), self._round)
            if after is self._round:
                return CheckInAnswer(None, self.settings.retry_after_s, window_s=self.settings.pace_s)
            place = after.places[message.device]
            examples = min(message.examples, self.settings.max_examples)
            self._store.put_place(after.number, message.device, place, examples)
            self._round = after
            return CheckInAnswer(self._task(after, place, at))

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
            self.note_refusal(number, assignment, exc)
            raise

    def note_refusal(self, number: int, assignment: str, refusal: Refused) -> None:
        """Log and count an update that is refused, by `accept` or before its bytes were all here."""
        with self._lock:
            device = self._store.put_refusal(number, assignment, refusal.reason)
        log.warning(
            "update refused: round=%d device=%s reason=%s detail=%s",
            number,
            device or "unknown",
            refusal.reason,
            json.dumps(refusal.detail),
        )

    def _accept(self, number: int, assignment: str, frame: bytes) -> Accepted:
        name = digest(frame)
        current = self._expecting(number, assignment, name)
        if current is None:
            return Accepted(True, duplicate=True)
        # Decoding is the slow part and needs no lock; the round is asked again after it.
        update = Checks.of(self._schema, self._terms(current)).decode(frame, current.base_version)
        with self._lock:
            current = self._expecting(number, assignment, name)
            if current is None:
                return Accepted(True, duplicate=True)
            at, pending = self._clock(), self._uncounted()
            after = apply(Accept(assignment, name, at), current)
            self._store.put_update(number, assignment, name, frame, reported_loss(update), at, pending)
            self._count(pending)
            self._round = after
        return Accepted(True, duplicate=False)

    def give_back(self, number: int, assignment: str, reason: str, device: str | None = None) -> None:
        """Take a place back from a device that cannot train. A round that is over takes it without effect."""
        self._check_owner(number, assignment, device)
        with self._lock:
            before = self._round
            if before is None or before.number != number:
                self._check_known(number, assignment)
                return
            after = apply(GiveBack(assignment, self._clock()), before)
            if after is not before:
                self._store.give_back(assignment, reason)
                self._round = after
                log.info("round %d: a device declined: %s", number, reason)

    def release(self, device: str, reason: str) -> None:
        """Take back the place of a device that is not to take part any more; what it has sent counts."""
        with self._lock:
            place = self._round and self._round.places.get(device)
            if self._round and place and place.id not in self._round.updates:
                self.give_back(self._round.number, place.id, reason)

    # -- time

    def tick(self) -> None:
        """Enforce the deadline, and aggregate the round if it is full."""
        with self._lock:
            self._pass_time(self._clock())
        with self._closing:
            full = self._round
            if full is not None and full.full:
                self._finish(full)

    def due(self) -> float:
        """Seconds until the current round needs a `tick`; infinity where none ever does."""
        current = self._round
        if current is None:
            return float("inf")
        return 0.0 if current.full else max(0.0, current.deadline - self._clock())

    # -- looking

    def max_bytes(self, number: int) -> int:
        """The largest frame a round takes; of a round that is over, what the present one does."""
        current = self._round
        if current is None:
            return self.settings.max_frame_bytes(self._schema)
        return self._terms(current).max_bytes

    @property
    def round_number(self) -> int | None:
        """Number of the current round, None when all are done."""
        return None if self._round is None else self._round.number

    def rounds(self) -> list[RoundInfo]:
        """All rounds, oldest first, with bytes up to now."""
        with self._lock:
            current, pending = self._round, self._uncounted()
            infos = self._store.round_infos()
        return [info if info.state == "closed" else _live(info, current, pending) for info in infos]

    def participants(self, number: int) -> Participants:
        """The devices of a round; Refused (`unknown-round`) where there is none."""
        if not self._store.has_round(number):
            raise _no_round(number)
        return Participants(number, self._store.participants(number))

    def status(self) -> Status:
        infos, total = self.rounds(), self._traffic()
        current = infos[-1] if infos and infos[-1].state != "closed" else None
        return Status(
            model=self.bundle.manifest.name,
            schema=self._schema.id.hex(),
            version=self._store.newest_number(),
            rounds_done=sum(i.state == "closed" for i in infos),
            rounds_total=self.settings.rounds,
            finished=current is None,
            round=current,
            devices=self._store.count_devices(),
            bytes_up=total.up,
            bytes_down=total.down,
            federation=self.federation,
        )

    # -- inside

    def _start(self) -> None:
        at = self._clock()
        if self._round is None and (fresh := self._following(self._store.rounds_done(), at)) is not None:
            self._store.open_round(fresh, at)
            self._round = fresh
        log.info(
            "model %r: at round %s of %d", self.bundle.manifest.name, self.round_number, self.settings.rounds
        )

    def _following(self, done: int, at: float, version: int | None = None) -> Round | None:
        if done >= self.settings.rounds:
            return None
        base = self._store.newest_number() if version is None else version
        terms = self.settings.terms(self._schema, done + 1)
        return Round.open(done + 1, base, self.settings.plan(), at, terms)

    def _terms(self, current: Round) -> Terms:
        return current.terms or self.settings.terms(self._schema, current.number)

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
            deadline_s=round(max(0.0, current.deadline - at), 3),
            fingerprint=self.shelf.fingerprint(current.base_version),
            federation=self.federation,
        )

    def _pass_time(self, at: float) -> None:
        before = self._round
        after = before and apply(Tick(at), before)
        if after is None or after is before:
            return
        if not after.full:
            self._store.put_deadline(after)
            log.warning(
                "round %d: %d of at least %d updates at the deadline, waiting on",
                after.number,
                len(after.updates),
                after.plan.minimum,
            )
        self._round = after

    def _expecting(self, number: int, assignment: str, name: str) -> Round | None:
        """The round, where it waits for this update; None where it has it. Refused where neither is so."""
        with self._lock:
            self._pass_time(self._clock())
            current = self._round
            if current is not None and current.number == number:
                return current if check_accept(Accept(assignment, name, self._clock()), current) else None
            self._check_known(number, assignment)
            stored = self._store.digest_of(number, assignment)
        if stored is None:
            raise Refused(409, "round-closed", f"round {number} closed without this update")
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
        made, verdicts = self._next_version(full)
        with self._lock:
            at, pending = self._clock(), self._uncounted()
            following = self._following(full.number, at, made.number)
            self._store.close_round(full.number, made, verdicts, following, at, pending)
            self._count(pending)
            self._round = following
        self._tell(full, verdicts)
        log.info("round %d closed with %d updates: version %d", full.number, len(full.updates), made.number)

    def _next_version(self, full: Round) -> tuple[Version, Mapping[str, Verdict]]:
        updates = Gathered(self._schema.size, lambda: self._contributions(full))
        return self.shelf.line.next_version(self._store.newest_version(), updates)

    def _contributions(self, full: Round) -> Iterator[Contribution]:
        for u in self._store.updates_of(full.number):
            checks = Checks.passed(self._schema, u.frame)
            yield Contribution(checks.decode(u.frame, full.base_version), u.weight, u.assignment)

    def _tell(self, closed: Round, verdicts: Mapping[str, Verdict]) -> None:
        """Name the devices whose updates did not count as they were."""
        names = {place.id: device for device, place in closed.places.items()}
        for assignment, verdict in verdicts.items():
            log.warning(
                "update bounded: round=%d device=%s %s", closed.number, names[assignment], verdict.reason
            )

    def _uncounted(self) -> Traffic:
        total = self._traffic()
        return Traffic(total.up - self._counted.up, total.down - self._counted.down)

    def _count(self, stored: Traffic) -> None:
        self._counted = Traffic(self._counted.up + stored.up, self._counted.down + stored.down)


def _no_round(number: int) -> Refused:
    return Refused(404, "unknown-round", f"there is no round {number}")


def _live(info: RoundInfo, current: Round | None, pending: Traffic) -> RoundInfo:
    """A round that is not closed, with what only memory knows."""
    full = current is not None and current.number == info.round and current.full
    return replace(
        info,
        state="full" if full else "open",
        bytes_up=info.bytes_up + pending.up,
        bytes_down=info.bytes_down + pending.down,
    )
