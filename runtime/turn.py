# SPDX-License-Identifier: Apache-2.0
"""One device's turn in a round: train, keep what came of it, send it until the server has answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from edgefl.bundle import Bundle
from edgefl.errors import DiskFull, NotResumable, ProtocolError, Refused
from edgefl.options import LimitOptions
from edgefl.runtime.algorithms import needs_control
from edgefl.runtime.belongings import Belongings
from edgefl.runtime.checkpoint import Checkpoint
from edgefl.runtime.conditions import Guard
from edgefl.runtime.going import Going
from edgefl.runtime.held import HeldVersion
from edgefl.runtime.learner import Learner, Stint
from edgefl.runtime.outbox import Note, Outbox, Pending
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.remote import Remote
from edgefl.runtime.report import RoundReport
from edgefl.runtime.work import LASTING, PASSING, Work, work
from edgefl.wire import MAX_TEXT, Task

log = logging.getLogger("edgefl.client")


@dataclass(frozen=True)
class Ready:
    """What a device has of one model.

    Attributes:
        bundle: the model.
        learner: trains it.
        held: the version the device holds.
        belongings: what it keeps to itself, before a federation is known.
    """

    bundle: Bundle
    learner: Learner
    held: HeldVersion
    belongings: Belongings


class Turns:
    """Works on tasks, one after the other."""

    def __init__(
        self,
        remote: Remote,
        going: Going,
        guard: Guard,
        outbox: Outbox,
        device: Callable[[], str],
        limits: LimitOptions,
        checkpoint_s: float,
    ) -> None:
        """
        Args:
            device: gives the device's name.
            limits: what a round may cost.
            checkpoint_s: seconds of training after which it is kept on disk.
        """
        self._remote, self._going, self._guard, self._outbox = remote, going, guard, outbox
        self._device, self._limits, self._checkpoint_s = device, limits, checkpoint_s

    def work(self, ready: Ready, task: Task) -> RoundReport:
        """Train as a task asks and send what came of it.

        Raises:
            DataError, BackendError: this device can take part in no round; the server was told.
            Interrupted: the device may not go on now.
            Stopped, ServerUnreachable, ServerNonsense: as `Going.insist`.
        """
        self._guard.demanded(task.training.when)
        if pause := self._guard.pause():
            return self._decline(task, pause.reason)
        log.info("round %d: training from version %d", task.round, task.base_version)
        until = self._going.clock() + task.deadline_s
        belongings = ready.belongings.of_federation(task.federation)
        self._guard.doing(f"trains in round {task.round}")
        up, down, started = self._remote.bytes_up, self._remote.bytes_down, time.perf_counter()
        try:
            values = self._going.insist(lambda: ready.held.fetch(self._remote, task))
            schema = ready.bundle.schema()
            residual, control = belongings.residual(schema, task.base_version), None
            if needs_control(task.training.fit):
                control = self._going.insist(lambda: self._remote.control(task.base_version, schema))
            train = partial(
                work, task, values, ready.learner, schema=schema, device=self._device(), residual=residual
            )
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
            if self._going.clock() < until:
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
        self._going.stored(
            lambda: self._outbox.put(pending, belongings, made.residual, learned.own, made.drift)
        )
        belongings.drop_checkpoint()
        return replace(self.send(pending, up, down), placements=learned.placements)

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
            should_stop=lambda: full or self._going.should_stop() or self._going.clock() >= until,
            seconds=self._limits.max_time_s,
            resume=belongings.checkpoint(task.assignment),
            keep=keep,
            keep_every_s=self._checkpoint_s,
        )
        self._going.begin_steps()
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
                self._going.stored(lambda: belongings.put_checkpoint(task.assignment, found))
            raise

    def send(self, pending: Pending, up: int | None = None, down: int | None = None) -> RoundReport:
        """Send until the server has answered for the update, then settle it on disk."""
        self._guard.doing(f"sends its update of round {pending.note.round}")
        note = pending.note
        up = self._remote.bytes_up if up is None else up
        down = self._remote.bytes_down if down is None else down
        accepted, duplicate, error = True, False, ""
        try:
            answer = self._going.insist(
                lambda: self._remote.upload(note.round, note.assignment, pending.frame), sending=True
            )
            duplicate = answer.duplicate
        except Refused as exc:
            accepted, error = False, str(exc)
            log.warning("round %d: %s", note.round, exc)
        self._going.stored(lambda: self._outbox.settle(accepted))
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
