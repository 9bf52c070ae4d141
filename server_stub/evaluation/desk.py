# SPDX-License-Identifier: Apache-2.0
"""Where devices get a version to measure, and leave what they found."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from edgefl.errors import Refused
from edgefl.plain import Quoted
from edgefl.server_stub.aggregate import digest
from edgefl.server_stub.evaluation.records import Records
from edgefl.server_stub.evaluation.state import Answer, Evaluation, Found, found
from edgefl.server_stub.present import Present
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.shelf import Shelf
from edgefl.wire import Accepted, CheckIn, Evaluated, EvaluationInfo, EvaluationTask

log = logging.getLogger("edgefl.server")


class Desk:
    """The evaluations of one server. Of the newest version places are given out while it is the newest;
    whoever has one may answer until its deadline. A version waits for nobody."""

    def __init__(
        self,
        records: Records,
        present: Present,
        settings: Settings,
        shelf: Shelf,
        federation: str,
        clock: Callable[[], float],
        on_closed: Callable[[int, Found], None],
    ) -> None:
        """
        Args:
            on_closed: told what was found of a version, within the event that closes its evaluation.
        """
        self._records, self._present, self._settings = records, present, settings
        self._shelf, self._federation, self._clock = shelf, federation, clock
        self._on_closed = on_closed

    @property
    def room(self) -> int:
        """Devices that may be asked now."""
        state = self._current()
        return 0 if state is None else state.room(self._clock())

    def infos(self, version: int | None = None) -> list[EvaluationInfo]:
        """All evaluations, oldest first, or only one."""
        return self._records.infos(version)

    def newest(self) -> EvaluationInfo | None:
        """The evaluation of the newest version that has any."""
        state = self._records.newest()
        return None if state is None else self._records.infos(state.version)[0]

    def asks(self, message: CheckIn) -> bool:
        """Whether a device that checks in may have something to measure."""
        state = self._current()
        return message.held_out > 0 and state is not None and state.waits_for(message.device, self._clock())

    def accept(self, version: int, assignment: str, body: Evaluated, device: str | None = None) -> Accepted:
        """Store what a device found. On return it is on disk and counts once.

        Args:
            device: who sends it, None where that is not known.

        Raises:
            Refused: `unknown-evaluation`, or as `Evaluation.expects`; it is logged, and changes nothing.
        """
        try:
            with self._present.event() as at:
                return Accepted(True, duplicate=not self._accept(version, assignment, body, device, at))
        except Refused as exc:
            log.warning(
                "evaluation refused: version=%(version)d device=%(device)s reason=%(reason)s "
                "detail=%(detail)s",
                {
                    "event": "evaluation-refused",
                    "version": version,
                    "device": device or "unknown",
                    "reason": exc.reason,
                    "detail": Quoted(exc.detail),
                },
            )
            raise

    # -- within an event

    def begin(self, version: int, at: float, *, certainly: bool) -> None:
        """Have a version measured where it is one that is to be.

        Args:
            certainly: whatever its number, as the last one is.
        """
        every = self._settings.evaluate_every
        if not every or ((version - self._shelf.line.first) % every and not certainly):
            return
        before = self._present.evaluation
        if before is not None and before.version >= version:
            return
        until = at + self._settings.evaluate_deadline_s
        state = Evaluation(version, self._settings.evaluators, until, self._settings.max_examples)
        self._records.open(state, at)
        self._present.evaluation = state

    def task(self, message: CheckIn, at: float) -> EvaluationTask | None:
        """What a device that checked in is to measure, None where that is nothing."""
        state = self._current()
        if message.held_out == 0 or state is None or not state.waits_for(message.device, at):
            return None
        after = state.seated(message.device, secrets.token_hex(16))
        seat = after.seats[message.device]
        if after is not state:
            self._records.put_seat(after.version, message.device, seat, at)
            self._present.evaluation = after
        return EvaluationTask(
            assignment=seat.id,
            base_version=after.version,
            max_examples=after.most,
            deadline_s=round(after.until - at, 3),
            when=self._settings.training.when,
            fingerprint=self._shelf.fingerprint(after.version),
            federation=self._federation,
        )

    def pass_time(self, at: float) -> None:
        """What time does to the newest evaluation."""
        state = self._present.evaluation
        if state is not None and not state.closed and at >= state.until:
            self._close(state)

    # -- inside

    def _current(self) -> Evaluation | None:
        """The evaluation of the version that is the newest of all."""
        state, current = self._present.evaluation, self._present.round
        return state if current is None or state is None or current.base_version == state.version else None

    def _accept(self, version: int, assignment: str, body: Evaluated, device: str | None, at: float) -> bool:
        """Whether the answer is new."""
        newest = self._present.evaluation
        state = newest if newest is not None and newest.version == version else self._records.find(version)
        if state is None:
            raise Refused(404, "unknown-evaluation", f"version {version} was not to be measured")
        name = digest(body.to_bytes())
        owner = state.expects(assignment, name, body.examples, at, device)
        if owner is None:
            return False
        answer = None if body.loss is None else Answer(body.examples, body.loss, body.accuracy)
        self._records.put_answer(assignment, name, answer)
        after = state.answered(owner, name, answer is None)
        if after.full:
            self._close(after)
        elif state is newest:
            self._present.evaluation = after
        return True

    def _close(self, state: Evaluation) -> None:
        result = found(self._records.answers(state.version))
        self._records.close(state.version, result)
        newest = self._present.evaluation
        if newest is not None and newest.version == state.version:
            self._present.evaluation = self._records.find(state.version)
        log.info(
            "version %(version)d: measured by %(devices)d devices on %(examples)d examples, loss %(loss)s",
            {
                "event": "version-measured",
                "version": state.version,
                "devices": result.devices,
                "examples": result.examples,
                "loss": result.loss,
                "accuracy": result.accuracy,
            },
        )
        self._on_closed(state.version, result)
