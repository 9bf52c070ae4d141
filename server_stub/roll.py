# SPDX-License-Identifier: Apache-2.0
"""Who took part in a round, and which updates were refused: rows of the database as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from edgefl.server_stub.aggregators import Verdict
from edgefl.server_stub.tables import (
    COUNTS_IN,
    assignments,
    counts_in,
    devices,
    refusals,
    rounds,
    updates,
    verdicts,
)
from edgefl.server_stub.values import became
from edgefl.wire import Participant, Refusals


def put_refusal(c: Connection, number: int, assignment: str, reason: str) -> str:
    """Count a refused update with the round it names, or the newest; the device's name, empty if unknown."""
    here = (assignments.c.round == number) & (assignments.c.assignment == assignment)
    device = c.execute(select(assignments.c.device).where(here)).scalar() or ""
    known = c.execute(select(rounds.c.number).where(rounds.c.number == number)).scalar()
    counted = known or c.execute(select(func.max(rounds.c.number))).scalar()
    if counted is None:
        return device
    row, key = refusals.c, {"round": counted, "device": device, "reason": reason}
    mine = (row.round == counted) & (row.device == device) & (row.reason == reason)
    if c.execute(update(refusals).where(mine).values(count=row.count + 1)).rowcount == 0:
        c.execute(insert(refusals).values(**key, count=1))
    return device


def refused(c: Connection, number: int | None = None) -> dict[int, tuple[Refusals, ...]]:
    """Refused updates of every round, or of one, by reason."""
    row = refusals.c
    total = func.sum(row.count).label("total")
    query = select(row.round, row.reason, total).group_by(row.round, row.reason).order_by(row.reason)
    query = query if number is None else query.where(row.round == number)
    found: dict[int, tuple[Refusals, ...]] = {}
    for each, reason, count in c.execute(query):
        found[each] = (*found.get(each, ()), Refusals(reason, int(count)))
    return found


def put_verdicts(c: Connection, found: Mapping[str, Verdict]) -> None:
    """Keep what became of updates, by assignment."""
    values = [{"assignment": key, "counted": v.counted, "reason": v.reason} for key, v in found.items()]
    if values:
        c.execute(insert(verdicts), values)


def bounded(c: Connection, number: int | None = None) -> dict[int, int]:
    """How many updates of every round, or of one, were shortened or set aside, where there are any."""
    query = select(COUNTS_IN, func.count()).select_from(verdicts.join(updates).join(assignments))
    query = query if number is None else query.where(counts_in(number))
    return {row[0]: row[1] for row in c.execute(query.group_by(COUNTS_IN))}


def participants(c: Connection, number: int) -> tuple[Participant, ...]:
    """Every device that was given a place in a round, in the order they came."""
    place, sent = assignments.c, updates.c
    reasons = select(refusals.c.device, refusals.c.reason).where(refusals.c.round == number)
    why: dict[str, str] = {}
    for device, reason in c.execute(reasons.order_by(refusals.c.reason)):
        why[device] = f"{why[device]}, {reason}" if device in why else reason
    query = (
        select(
            place.device, place.examples, place.declined, place.reason, devices.c.engine,
            sent.size, sent.loss, rounds.c.closed_at, verdicts.c.counted, verdicts.c.reason.label("verdict"),
        )
        .select_from(assignments.join(devices).join(rounds).outerjoin(updates).outerjoin(verdicts))
        .where(place.round == number)
        .order_by(place.at, place.device)
    )  # fmt: skip
    return tuple(_participant(row, why.get(row["device"], "")) for row in c.execute(query).mappings())


def _participant(row: Any, refused: str) -> Participant:
    sent = row["size"] is not None
    state = became(sent, row["declined"], bool(refused), row["closed_at"] is not None)
    return Participant(
        device=row["device"],
        engine=row["engine"],
        examples=row["examples"],
        state=state,
        bytes=row["size"] or 0,
        loss=row["loss"],
        reason=row["reason"] if state == "declined" else row["verdict"] or refused,
        counted=1.0 if row["counted"] is None else row["counted"],
    )
