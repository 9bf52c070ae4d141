# SPDX-License-Identifier: Apache-2.0
"""Evaluations of a server that lasts as long as its process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edgefl.server_stub.evaluation.state import Answer, Evaluation, Found, Seat, found
from edgefl.wire import EvaluationInfo


@dataclass
class _Record:
    state: Evaluation
    opened_at: float
    answers: dict[str, Answer] = field(default_factory=dict)
    result: Found | None = None


class MemoryRecords:
    """See `Records`."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}

    def open(self, state: Evaluation, at: float) -> None:
        self._records[state.version] = _Record(state, at)

    def find(self, version: int) -> Evaluation | None:
        record = self._records.get(version)
        return None if record is None else record.state

    def newest(self) -> Evaluation | None:
        return self.find(max(self._records)) if self._records else None

    def put_seat(self, version: int, device: str, seat: Seat, at: float) -> None:
        record = self._records[version]
        record.state = replace(record.state, seats={**record.state.seats, device: seat})

    def put_answer(self, assignment: str, digest: str, answer: Answer | None) -> None:
        for record in self._records.values():
            for device, seat in record.state.seats.items():
                if seat.id == assignment:
                    record.state = record.state.answered(device, digest, answer is None)
                    if answer is not None:
                        record.answers[assignment] = answer
                    return

    def answers(self, version: int) -> list[Answer]:
        return list(self._records[version].answers.values())

    def close(self, version: int, result: Found) -> None:
        record = self._records[version]
        record.state, record.result, record.answers = replace(record.state, closed=True), result, {}

    def infos(self, version: int | None = None) -> list[EvaluationInfo]:
        return [
            info(r.state, r.opened_at, r.result or found(list(r.answers.values())))
            for number, r in sorted(self._records.items())
            if version in (None, number)
        ]


def info(state: Evaluation, opened_at: float, result: Found) -> EvaluationInfo:
    """An evaluation as it is told."""
    return EvaluationInfo(
        version=state.version,
        state="closed" if state.closed else "open",
        wanted=state.places,
        opened_at=opened_at,
        until=state.until,
        **vars(result),
    )
