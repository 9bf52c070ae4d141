# SPDX-License-Identifier: Apache-2.0
"""The device's loop: check in, train, send, again; past servers that are down, slow or talk nonsense."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edgefl.bundle import Bundle
from edgefl.bundle.publisher import Publishers
from edgefl.data import Examples
from edgefl.errors import DataError, DiskFull, EdgeflError, NotResumable, ProtocolError, Refused
from edgefl.files import write_atomically
from edgefl.options import LimitOptions
from edgefl.runtime.algorithms import needs_control
from edgefl.runtime.backends import Backend, proved
from edgefl.runtime.belongings import CHECKPOINT, Belongings
from edgefl.runtime.cache import BundleCache, targets_for
from edgefl.runtime.checkpoint import EVERY_S, Checkpoint
from edgefl.runtime.conditions import Guard, conditions_here
from edgefl.runtime.conditions.guard import LOOK_AGAIN_S
from edgefl.runtime.delegates import Placement
from edgefl.runtime.evaluating import evaluated, held_out_by
from edgefl.runtime.feature_cache import LIMIT_BYTES, FeatureCache
from edgefl.runtime.held import HeldVersion
from edgefl.runtime.learner import Learner, Stint, TrainerLearner
from edgefl.runtime.limits import Duty, limited
from edgefl.runtime.lock import only_one
from edgefl.runtime.outbox import Note, Outbox, Pending
from edgefl.runtime.patience import Patience, Stopped, never
from edgefl.runtime.pause import Interrupted, MayGoOn, always
from edgefl.runtime.remote import BUNDLE_BYTES, Remote
from edgefl.runtime.store.source import Source
from edgefl.runtime.transport import Transport
from edgefl.runtime.work import LASTING, PASSING, Work, work
from edgefl.wire import MAX_TEXT, CheckIn, CheckInAnswer, Evaluated, EvaluationTask, Task

log = logging.getLogger("edgefl.client")
T = TypeVar("T")


@dataclass(frozen=True)
class RoundReport:
    """What became of one round on this device.

    Attributes:
        round: its number.
        base_version: version of the parameters training started from.
        accepted: the server has the update.
        duplicate: it had it before; an answer was lost on the way.
        loss: mean training loss, None where training did not finish.
        frame_bytes: length of the update's frame, 0 without one.
        bytes_up: bodies sent for the round.
        bytes_down: bodies received for the round.
        seconds: time training and encoding took.
        error: why no update counts, empty where one does.
        placements: which graph ran where; empty for an update left over from an earlier run.
    """

    round: int
    base_version: int
    accepted: bool
    duplicate: bool = False
    loss: float | None = None
    frame_bytes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    error: str = ""
    placements: tuple[Placement, ...] = ()


MakeLearner = Callable[[Bundle], Learner]
Reader = Callable[[Bundle], Examples]
"""Reads the examples once the model is known."""


class DeviceClient:
    """One device of one server. Its folder holds all it must remember; no two clients may share one.

    Whatever the folder holds is touched under its lock only: by `run`, and by `device` where it makes a name.
    """

    def __init__(
        self,
        transport: Transport,
        examples: Examples | Source | Reader | None,
        workdir: str | os.PathLike[str],
        *,
        backend: str | Backend = "auto",
        delegate: str = "auto",
        device: str | None = None,
        labels: str = "",
        learner: MakeLearner | None = None,
        patience: Patience | None = None,
        may_go_on: MayGoOn = always,
        feature_bytes: int = LIMIT_BYTES,
        bundle_bytes: int = BUNDLE_BYTES,
        publishers: Iterable[str] = (),
        guard: Guard | None = None,
        limits: LimitOptions | None = None,
        checkpoint_s: float = EVERY_S,
        holdout: float = 0.0,
    ) -> None:
        """
        Args:
            examples: what to train on, an `ExampleStore` to look into before each round, or what reads them
                given the bundle; may be None where `learner` brings its own.
            device: the device's name; None makes one up and keeps it in the folder.
            labels: what the server may choose devices by, as in `app=1.4,beta=yes`.
            learner: makes what trains, given the bundle; a `TrainerLearner` by default.
            patience: how to wait for the server.
            may_go_on: asked before every request and every step; where it names a reason, the device stops
                within one step and asks again later.
            feature_bytes: most that features of the frozen part may take in the folder; 0 keeps none.
            bundle_bytes: the longest bundle to accept from the server.
            publishers: public keys, as `edgefl keys new` prints them, one of which must have signed the
                bundle; without any, whatever the server has is taken.
            guard: says when the device may train; by default always, unless the server asks for something.
            limits: what a round may cost, whatever the server asks for.
            checkpoint_s: seconds of training after which it is kept on disk; so much may be lost in a crash.
            holdout: part of the examples that is never trained on, to measure versions on.

        Raises:
            OptionError: a publisher's key is none.
            MissingDependency: there is one, and no `cryptography`.
        """
        self.finished = False
        """Whether the server has said that it has no more rounds."""
        self._home = Path(workdir)
        self._remote = Remote(transport, bundle_bytes, Publishers(publishers))
        self._patience = patience or Patience()
        self._cache = BundleCache(self._home, targets_for(backend, delegate))
        self._outbox = Outbox(self._home)
        self._name, self._labels = device, labels
        self._limits, self._checkpoint_s = limits or LimitOptions(), checkpoint_s
        self._duty = Duty(self._limits.duty, self._patience.sleep)
        self._source = None if isinstance(examples, Examples) or callable(examples) else examples
        if self._source is not None and self._source.sealed:
            feature_bytes = 0  # what is encrypted where it lies is not to lie beside it in another form
        self._features = self._home / "features"
        self._make = learner or partial(
            _trainer,
            examples=examples,
            backend=backend,
            delegate=delegate,
            threads=self._limits.threads,
            holdout=holdout,
            features=FeatureCache(self._features, feature_bytes) if feature_bytes else None,
        )
        self._guard = guard or Guard(self._home, conditions=conditions_here(self._home))
        self._until: Callable[[], bool] = never
        self._may_go_on = may_go_on

    def run(
        self, max_rounds: int | None = None, until: Callable[[], bool] | None = None
    ) -> Iterator[RoundReport]:
        """Take part until the server has run all its rounds; yields one report per round.

        An update left over from an earlier run is sent first and reported too.

        Args:
            max_rounds: stop after so many reports.
            until: asked before every request and every step; true stops.

        Raises:
            OptionError: another client runs in the same folder.
            DataError, BackendError: this device cannot train the model; the server was told.
            BundleSignature: no publisher that is trusted here has signed the server's bundle.
            Refused: the server will not have this device.
            ServerUnreachable, ServerNonsense: the patience has an end and it came.
        """
        self._until = until or never
        with ExitStack() as locked:
            try:
                self._on_disk(lambda: locked.enter_context(only_one(self._home)))
                self._name = self._on_disk(self._named)
            except Stopped:
                return
            self._guard.begin()
            if self._source is not None:
                self._source.derives(self._features, self._home / CHECKPOINT)
            yield from self._run(max_rounds)

    @property
    def device(self) -> str:
        """The device's name; one is made up and kept where the folder has none yet."""
        if self._name is None and not (self._home / "device").exists():
            with only_one(self._home):
                self._name = self._named()
        return self._name or self._named()

    def _run(self, max_rounds: int | None) -> Iterator[RoundReport]:
        try:
            for count, report in enumerate(self._reports(), start=1):
                self._note(report)
                yield report
                if max_rounds is not None and count >= max_rounds:
                    self._guard.doing("has made as many rounds as asked")
                    return
        except Stopped:
            log.info("%s stops as asked", self.device)
            self._guard.doing("was stopped")
        except EdgeflError as exc:
            self._guard.doing(f"has ended: {exc}"[:MAX_TEXT])
            raise

    # -- the loop

    def _reports(self) -> Iterator[RoundReport]:
        self._outbox.recover()
        left_over = self._outbox.get()
        if left_over is not None and self._is_ours(left_over):
            log.info("round %d: sending the update left over from before", left_over.note.round)
            yield self._send(left_over)
        self._guard.doing("fetches the model")
        bundle, learner = self._prepare()
        failures = 0
        while True:
            if self._source is None:
                self._guard.has(learner.examples)
            if not learner.examples:
                self._guard.doing("waits for examples")
                self._patience.wait(LOOK_AGAIN_S, stop=self._until)
                continue
            self._guard.doing("waits for the server")
            try:
                answer = self._insist(partial(self._check_in, bundle, learner))
            except Refused as exc:
                if exc.reason != "wrong-schema":
                    raise
                bundle, learner = self._renew(bundle, exc)
                continue
            if answer.finished:
                self.finished = True
                self._guard.doing("has finished: the server has no more rounds")
                return
            if answer.evaluation is not None:
                self._measure(learner, answer.evaluation)
                continue
            if answer.task is None:
                self._patience.wait(answer.retry_after_s, answer.window_s, self._until)
                continue
            try:
                report = self._work(bundle, learner, limited(answer.task, self._limits))
            except Interrupted:
                continue
            failures = failures + 1 if report.error else 0
            yield report
            if failures:
                self._patience.rest(self._patience.delay(failures), self._until)

    def _is_ours(self, left_over: Pending) -> bool:
        """Whether an update is for this server; another's never sees it."""
        status = self._patience.insist(self._remote.status, partial(self._gate, sending=True), self._until)
        if status.federation == left_over.note.federation:
            return True
        self._outbox.set_aside()
        return False

    def _prepare(self) -> tuple[Bundle, Learner]:
        bundle = self._insist(lambda: self._cache.fetch(self._remote))
        self._held = HeldVersion(self._home / "held.safetensors", bundle)
        self._belongings = Belongings.of(self._home, bundle)
        return bundle, self._make(bundle)

    def _renew(self, old: Bundle, refusal: Refused) -> tuple[Bundle, Learner]:
        """The server has another model now; Refused again where it says so but offers the same one."""
        self._cache.forget()
        bundle, learner = self._prepare()
        if bundle.schema().id == old.schema().id:
            raise refusal
        return bundle, learner

    def _check_in(self, bundle: Bundle, learner: Learner) -> CheckInAnswer:
        schema, examples = bundle.schema().id.hex(), max(1, learner.examples)
        held_out = held_out_by(learner)
        message = CheckIn(self.device, schema, learner.engine, examples, self._labels, held_out)
        return self._remote.check_in(message)

    # -- one evaluation

    def _measure(self, learner: Learner, task: EvaluationTask) -> None:
        """Tell the server how good a version is here; where the device may not go on, later or not at all."""
        self._guard.demanded(task.when)
        if self._guard.pause():
            return
        until = self._patience.clock() + task.deadline_s
        self._guard.doing(f"measures version {task.base_version}")
        stint = Stint(
            own=self._belongings.of_federation(task.federation).personal(),
            should_stop=lambda: self._should_stop() or self._patience.clock() >= until,
        )
        self._duty.begin()
        version, held = task.base_version, self._held
        try:
            values = self._insist(lambda: held.fetch(self._remote, task))
            found, said = evaluated(task, values, learner, stint)
        except Interrupted:
            log.info("version %d: interrupted", version)
            return
        except Refused as exc:
            found, said = Evaluated(), str(exc)
        accepted = True
        try:
            self._insist(lambda: self._remote.evaluated(version, task.assignment, found))
        except Refused as exc:
            accepted, said = False, str(exc)
        if said:
            log.warning("version %d: %s", version, said)
            self._patience.rest(self._patience.delay(1), self._until)
        self._guard.measured(version, found, accepted=accepted, said=said)

    # -- one round

    def _work(self, bundle: Bundle, learner: Learner, task: Task) -> RoundReport:
        self._guard.demanded(task.training.when)
        if pause := self._guard.pause():
            return self._decline(task, pause.reason)
        log.info("round %d: training from version %d", task.round, task.base_version)
        until = self._patience.clock() + task.deadline_s
        belongings = self._belongings.of_federation(task.federation)
        self._guard.doing(f"trains in round {task.round}")
        up, down, started = self._remote.bytes_up, self._remote.bytes_down, time.perf_counter()
        try:
            held = self._held
            values = self._insist(lambda: held.fetch(self._remote, task))
            schema = bundle.schema()
            residual, control = belongings.residual(schema, task.base_version), None
            if needs_control(task.training.fit):
                control = self._insist(lambda: self._remote.control(task.base_version, schema))
            train = partial(work, task, values, learner, schema=schema, device=self.device, residual=residual)
            brought = Stint(
                own=belongings.personal(),
                drift=belongings.drift(schema, task.training.fit.algorithm),
                control=control,
            )
            made = self._interruptibly(task, belongings, until, train, brought)
        except PASSING as exc:
            belongings.drop_checkpoint()
            return self._decline(task, str(exc))
        except LASTING as exc:
            self._decline(task, str(exc))
            raise
        except Refused as exc:
            return RoundReport(task.round, task.base_version, False, error=str(exc))
        except Interrupted:
            if self._patience.clock() < until:
                raise
            late = "the round's deadline has passed; training goes on if the server still waits for it"
            return RoundReport(task.round, task.base_version, False, error=late)
        seconds, learned = time.perf_counter() - started, made.learned
        note = Note(
            round=task.round,
            assignment=task.assignment,
            base_version=task.base_version,
            loss=learned.loss,
            seconds=seconds,
            frame_bytes=len(made.frame),
            federation=task.federation,
        )
        pending = Pending(note, made.frame)
        self._guard.count_update()
        self._stored(lambda: self._outbox.put(pending, belongings, made.residual, learned.own, made.drift))
        belongings.drop_checkpoint()
        return replace(self._send(pending, up, down), placements=learned.placements)

    def _interruptibly(
        self, task: Task, belongings: Belongings, until: float, train: Callable[..., Work], brought: Stint
    ) -> Work:
        """Train from where an earlier stint stopped, and keep where this one does.

        Raises:
            Interrupted: the device may not go on, is asked to stop, the disk is full, or the deadline has
                passed.
        """
        full = False

        def keep(made: Checkpoint) -> None:
            nonlocal full
            try:
                belongings.put_checkpoint(task.assignment, made)
            except DiskFull:
                full = True  # training pauses before the next step, and waits for room
            except OSError as exc:
                log.warning("round %d: training is not kept: %s", task.round, exc)

        stint = replace(
            brought,
            should_stop=lambda: full or self._should_stop() or self._patience.clock() >= until,
            seconds=self._limits.max_time_s,
            resume=belongings.checkpoint(task.assignment),
            keep=keep,
            keep_every_s=self._checkpoint_s,
        )
        self._duty.begin()
        try:
            try:
                return train(stint=stint)
            except NotResumable as exc:
                log.warning("round %d: training begins anew: %s", task.round, exc)
                belongings.drop_checkpoint()
                return train(stint=replace(stint, resume=None))
        except Interrupted as stop:
            found = stop.checkpoint
            log.info("round %d: interrupted after %d steps", task.round, len(found.losses) if found else 0)
            if found is not None:
                self._stored(lambda: belongings.put_checkpoint(task.assignment, found))
            raise

    def _send(self, pending: Pending, up: int | None = None, down: int | None = None) -> RoundReport:
        """Send until the server has answered for the update, then settle it on disk."""
        self._guard.doing(f"sends its update of round {pending.note.round}")
        note = pending.note
        up = self._remote.bytes_up if up is None else up
        down = self._remote.bytes_down if down is None else down
        accepted, duplicate, error = True, False, ""
        try:
            gate = partial(self._gate, sending=True)
            answer = self._patience.insist(
                lambda: self._remote.upload(note.round, note.assignment, pending.frame), gate, self._until
            )
            duplicate = answer.duplicate
        except Refused as exc:
            accepted, error = False, str(exc)
            log.warning("round %d: %s", note.round, exc)
        self._stored(lambda: self._outbox.settle(accepted))
        return RoundReport(
            round=note.round,
            base_version=note.base_version,
            accepted=accepted,
            duplicate=duplicate,
            loss=note.loss,
            frame_bytes=note.frame_bytes,
            bytes_up=self._remote.bytes_up - up,
            bytes_down=self._remote.bytes_down - down,
            seconds=note.seconds,
            error=error,
        )

    def _decline(self, task: Task, reason: str) -> RoundReport:
        """Give the place back. Only a courtesy, so one try: without it the server waits for its deadline."""
        log.error("round %d: no update is sent: %s", task.round, reason)
        try:
            self._remote.decline(task.round, task.assignment, reason[:MAX_TEXT])
        except ProtocolError as exc:
            log.warning("round %d: the server was not told: %s", task.round, exc)
        return RoundReport(task.round, task.base_version, False, error=reason)

    # -- inside

    def _note(self, report: RoundReport) -> None:
        """Leave the owner a line about a round."""
        self._guard.finished_round(
            report.round,
            accepted=report.accepted,
            loss=report.loss,
            bytes_up=report.bytes_up,
            bytes_down=report.bytes_down,
            seconds=report.seconds,
            error=report.error,
        )

    def _insist(self, call: Callable[[], T]) -> T:
        return self._patience.insist(partial(self._writing, call), self._gate, self._until)

    def _stored(self, call: Callable[[], T]) -> T:
        return self._on_disk(partial(self._writing, call))

    def _on_disk(self, call: Callable[[], T]) -> T:
        """The result of a call that writes. What is in hand is stored at once, unless the disk is full."""
        try:
            return call()
        except DiskFull as exc:
            log.warning("%s", exc)
            self._patience.rest(self._patience.delay(1), self._until)
            return self._patience.insist(call, self._stop_if_asked, self._until)

    def _writing(self, call: Callable[[], T]) -> T:
        """The result of a call; whether it found room on the disk is told to whoever asks."""
        try:
            made = call()
        except DiskFull:
            self._guard.found_room(False)
            raise
        self._guard.found_room(True)
        return made

    def _gate(self, sending: bool = False) -> None:
        """Wait while the device may not go on; Stopped where the caller wants no more."""
        told = ""
        while True:
            self._stop_if_asked()
            if self._source is not None:
                self._guard.has(self._source.ever_added())
            pause = self._may_go_on() or self._guard.pause(sending)
            if pause is None:
                return
            if pause.reason != told:
                log.info("%s pauses: %s", self.device, pause.reason)
                told = pause.reason
            self._patience.wait(pause.retry_s, stop=self._until)

    def _stop_if_asked(self) -> None:
        if self._until():
            raise Stopped

    def _should_stop(self) -> bool:
        """Asked between two steps, which are rested between too."""
        return self._is_stopped() or self._duty.rest(self._is_stopped)

    def _is_stopped(self) -> bool:
        return self._until() or self._may_go_on() is not None or self._guard.pause() is not None

    def _named(self) -> str:
        if self._name is not None:
            return self._name
        file = self._home / "device"
        if not file.exists():
            write_atomically(file, f"device-{secrets.token_hex(8)}".encode())
        return file.read_text().strip()


def _trainer(
    bundle: Bundle, examples: Examples | Source | Reader | None, backend: str | Backend, **options: Any
) -> Learner:
    if examples is None:
        raise DataError("there are no examples to train on")
    if not isinstance(backend, str):
        # An app's engine that is wrong must not take a place in a round first.
        backend = proved(bundle, backend)
    if callable(examples):
        examples = examples(bundle)
    return TrainerLearner(bundle, examples, backend=backend, **options)
