# SPDX-License-Identifier: Apache-2.0
"""Evaluations in the server's database."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, func, insert, select, true, update

from edgefl.server_stub.database import Database
from edgefl.server_stub.evaluation.memory import info
from edgefl.server_stub.evaluation.state import Answer, Evaluation, Found, Seat, found
from edgefl.server_stub.tables import evaluations, evaluators
from edgefl.wire import EvaluationInfo


class SqlRecords:
    """See `Records`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, state: Evaluation, at: float) -> None:
        values = {"version": state.version, "places": state.places, "until": state.until, "most": state.most}
        with self._database.writing() as c:
            c.execute(insert(evaluations).values(opened_at=at, closed=False, **values))

    def find(self, version: int) -> Evaluation | None:
        with self._database.reading() as c:
            row = c.execute(select(evaluations).where(evaluations.c.version == version)).mappings().first()
            return None if row is None else _state(c, row)

    def newest(self) -> Evaluation | None:
        with self._database.reading() as c:
            number = c.execute(select(func.max(evaluations.c.version))).scalar()
            return None if number is None else self.find(number)

    def put_seat(self, version: int, device: str, seat: Seat, at: float) -> None:
        with self._database.writing() as c:
            values = {"assignment": seat.id, "version": version, "device": device, "at": at}
            c.execute(insert(evaluators).values(digest="", **values))

    def put_answer(self, assignment: str, digest: str, answer: Answer | None) -> None:
        values = {"examples": 0} if answer is None else vars(answer)
        with self._database.writing() as c:
            key = evaluators.c.assignment == assignment
            c.execute(update(evaluators).where(key).values(digest=digest, **values))

    def answers(self, version: int) -> list[Answer]:
        with self._database.reading() as c:
            return _answers(c, version)

    def close(self, version: int, result: Found) -> None:
        with self._database.writing() as c:
            mine = evaluations.c.version == version
            c.execute(update(evaluations).where(mine).values(closed=True, **vars(result)))
            theirs = evaluators.c.version == version
            c.execute(update(evaluators).where(theirs).values(loss=None, accuracy=None))

    def infos(self, version: int | None = None) -> list[EvaluationInfo]:
        which = true() if version is None else evaluations.c.version == version
        with self._database.reading() as c:
            rows = c.execute(select(evaluations).where(which).order_by(evaluations.c.version)).mappings()
            return [_info(c, row) for row in rows.all()]


def _info(c: Connection, row: RowMapping) -> EvaluationInfo:
    if row["closed"]:
        result = Found(*(row[name] for name in ("devices", "examples", "loss", "median_loss", "accuracy")))
    else:
        result = found(_answers(c, row["version"]))
    return info(_bare(row), row["opened_at"], result)


def _bare(row: RowMapping) -> Evaluation:
    """Without its seats."""
    return Evaluation(row["version"], row["places"], row["until"], row["most"], closed=row["closed"])


def _state(c: Connection, row: RowMapping) -> Evaluation:
    made = _bare(row)
    rows = c.execute(select(evaluators).where(evaluators.c.version == made.version)).mappings()
    seats = {r["device"]: Seat(r["assignment"], r["digest"], r["examples"] == 0) for r in rows}
    return Evaluation(made.version, made.places, made.until, made.most, seats, made.closed)


def _answers(c: Connection, version: int) -> list[Answer]:
    row = evaluators.c
    query = select(row.examples, row.loss, row.accuracy).where(row.version == version, row.examples > 0)
    return [Answer(*answer) for answer in c.execute(query)]
