# SPDX-License-Identifier: Apache-2.0
"""Between rows of the database and the values the server works with."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Integer, RowMapping, cast, delete, func, insert, select, true, update

from edgefl.errors import ProtocolError, StoreError
from edgefl.server_stub import roll
from edgefl.server_stub.downlink import Link
from edgefl.server_stub.rounds import Behind, Place, Plan, Round
from edgefl.server_stub.tables import (
    COUNTS_IN,
    assignments,
    counts_in,
    federation,
    publications,
    registry,
    rounds,
    updates,
    versions,
)
from edgefl.server_stub.terms import Terms
from edgefl.server_stub.values import Publication, Traffic, Version, came_to
from edgefl.strictjson import canonical
from edgefl.wire import Refusals, RoundInfo

_WEIGHT = assignments.c.examples
_PLACES = select(
    assignments.c.round,
    func.count().label("assigned"),
    func.sum(cast(assignments.c.declined, Integer)).label("declined"),
).group_by(assignments.c.round)
_SENT = (
    select(
        COUNTS_IN.label("round"),
        func.count().label("updates"),
        func.sum(updates.c.size).label("frame_bytes"),
        (func.sum(updates.c.loss * _WEIGHT) / func.sum(_WEIGHT)).label("loss"),
    )
    .select_from(updates.join(assignments))
    .group_by(COUNTS_IN)
)


def federation_name(c: Connection) -> str:
    """What the database calls its federation; it is given a name where it has none."""
    known = c.execute(select(federation.c.name)).scalar()
    if known is None:
        known = secrets.token_hex(8)
        c.execute(insert(federation).values(id=1, name=known))
    return known


def infos(c: Connection, number: int | None) -> list[RoundInfo]:
    """Every round with what became of it, oldest first; or only one."""
    of = true() if number is None else assignments.c.round == number
    mine = true() if number is None else rounds.c.number == number
    places = {r["round"]: dict(r) for r in c.execute(_PLACES.where(of)).mappings()}
    here = true() if number is None else counts_in(number)
    sent = {r["round"]: dict(r) for r in c.execute(_SENT.where(here)).mappings()}
    refused, bounded = roll.refused(c, number), roll.bounded(c, number)
    found = c.execute(select(rounds).where(mine).order_by(rounds.c.number)).mappings().all()
    return [
        _info(r, places.get(n, {}), sent.get(n, {}), refused.get(n, ()), bounded.get(n, 0), _missing(c, r))
        for r in found
        for n in [r["number"]]
    ]


def _missing(c: Connection, row: RowMapping) -> str:
    """Parties of a round whose update is not here."""
    if not row["parties"]:
        return ""
    query = select(assignments.c.device).select_from(updates.join(assignments))
    sent = set(c.execute(query.where(assignments.c.round == row["number"])).scalars())
    return ",".join(name for name in row["parties"].split(",") if name not in sent)


def _info(
    row: RowMapping,
    places: Mapping[str, Any],
    sent: Mapping[str, Any],
    refused: tuple[Refusals, ...],
    bounded: int,
    missing: str,
) -> RoundInfo:
    return RoundInfo(
        round=row["number"],
        state=came_to(row["closed_at"], row["version"]),
        base_version=row["base_version"],
        version=row["version"],
        goal=row["goal"],
        minimum=row["minimum"],
        assigned=places.get("assigned", 0),
        declined=places.get("declined", 0),
        updates=sent.get("updates", 0),
        loss=sent.get("loss"),
        extensions=row["extensions"],
        opened_at=row["opened_at"],
        deadline=row["deadline"],
        closed_at=row["closed_at"],
        frame_bytes=int(sent.get("frame_bytes", 0)),
        bytes_up=row["bytes_up"],
        bytes_down=row["bytes_down"],
        refused=refused,
        bounded=bounded,
        missing=missing,
    )


def load_round(c: Connection, row: RowMapping) -> Round:
    number = row["number"]
    places = c.execute(select(assignments).where(assignments.c.round == number)).mappings().all()
    mine = updates.join(assignments)
    sent = c.execute(
        select(updates.c.assignment, updates.c.digest).select_from(mine).where(counts_in(number))
    ).all()
    return Round(
        number=number,
        base_version=row["base_version"],
        plan=Plan(
            row["goal"],
            row["minimum"],
            row["seconds"],
            row["places"],
            row["staleness"] or 0,
            row["patience"],
            tuple(filter(None, row["parties"].split(","))),
        ),
        deadline=row["deadline"],
        extensions=row["extensions"],
        places={p["device"]: Place(p["assignment"], p["at"], p["declined"]) for p in places},
        updates={row.assignment: row.digest for row in sent},
        full=len(sent) >= row["goal"],
        terms=None if row["terms"] is None else load_terms(row["terms"]),
        behind=_behind(c, row) if row["staleness"] else {},
    )


def _behind(c: Connection, row: RowMapping) -> dict[str, Behind]:
    """Devices still at work on a place of an earlier round, and those whose late updates a round has."""
    number, oldest = row["number"], row["base_version"] - row["staleness"]
    newest = (
        select(assignments.c.device, func.max(assignments.c.round).label("round"))
        .where(assignments.c.round <= number)
        .group_by(assignments.c.device)
        .subquery()
    )
    late = number == COUNTS_IN
    at_work = updates.c.assignment.is_(None) & (newest.c.round == assignments.c.round)
    joined = (
        assignments.join(rounds)
        .outerjoin(updates, updates.c.assignment == assignments.c.assignment)
        .join(newest, newest.c.device == assignments.c.device)
    )
    query = (
        select(assignments.c.device, assignments.c.assignment, rounds.c.base_version)
        .select_from(joined)
        .where(assignments.c.round < number, rounds.c.base_version >= oldest)
        .where(assignments.c.declined.is_(False), (updates.c.round.is_not(None) & late) | at_work)
    )
    return {device: Behind(key, base) for device, key, base in c.execute(query)}


def load_terms(stored: str) -> Terms:
    try:
        return Terms.from_bytes(stored.encode())
    except ProtocolError as exc:
        raise StoreError(f"the terms of a round in the database cannot be read: {exc}") from exc


def planned(state: Round) -> dict[str, Any]:
    """Columns of a round that say what it asks for."""
    return {
        "goal": state.plan.goal,
        "minimum": state.plan.minimum,
        "seconds": state.plan.seconds,
        "places": state.plan.places,
        "staleness": state.plan.staleness,
        "patience": state.plan.patience,
        "parties": ",".join(state.plan.parties),
        # In full: what was asked for stays, whatever later releases do by default.
        "terms": None if state.terms is None else canonical(state.terms.to_json()).decode(),
    }


def insert_round(c: Connection, state: Round, at: float) -> None:
    c.execute(
        insert(rounds).values(
            number=state.number,
            base_version=state.base_version,
            **planned(state),
            opened_at=at,
            deadline=state.deadline,
            extensions=state.extensions,
            bytes_up=0,
            bytes_down=0,
        )
    )


def insert_version(c: Connection, version: Version, at: float) -> None:
    c.execute(
        insert(versions).values(
            version=version.number,
            parameters=version.parameters,
            optimizer=version.optimizer,
            made_at=at,
            parent=version.parent,
            restores=version.restores,
            bundle=version.bundle or None,
        )
    )
    if (made := version.publication) is not None:
        old = publications.c.version < version.number - 1
        c.execute(update(publications).where(old).values(standing=None))
        c.execute(
            insert(publications).values(
                version=version.number,
                base=made.link.base,
                frame=made.link.frame,
                unit=made.link.unit,
                fingerprint=made.fingerprint,
                standing=made.standing,
            )
        )


def prune(c: Connection, keep: int) -> None:
    """Empty the versions before the newest `keep` but the first and what was decided to stay, and forget what
    led to them."""
    number = versions.c.version
    newest, first = c.execute(select(func.max(number), func.min(number))).one()
    c.execute(update(versions).where(number < newest, versions.c.optimizer != b"").values(optimizer=b""))
    promoted = select(registry.c.promoted).where(registry.c.promoted.is_not(None))
    stays = versions.c.pinned | number.in_(promoted)
    old = (number <= newest - keep) & (number > first) & (versions.c.parameters != b"") & ~stays
    c.execute(update(versions).where(old).values(parameters=b""))
    c.execute(delete(publications).where(publications.c.version <= newest - keep))


def load_publication(row: RowMapping) -> Publication:
    link = Link(row["version"], row["base"], row["frame"], row["unit"])
    return Publication(link, row["fingerprint"], row["standing"])


def add_traffic(c: Connection, number: int, t: Traffic) -> None:
    row = rounds.c
    c.execute(
        update(rounds)
        .where(row.number == number)
        .values(bytes_up=row.bytes_up + t.up, bytes_down=row.bytes_down + t.down)
    )
