# SPDX-License-Identifier: Apache-2.0
"""Durable storage of rounds, updates and versions, by SQLAlchemy Core.

SQLite in WAL mode is what it runs on today; statements are plain SQL, so another database is a URL away.
A method returns only after its transaction is on disk, and each leaves a state that a restart can go on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from edgefl.errors import StoreError
from edgefl.server_stub import roll, rows
from edgefl.server_stub.aggregators import Verdict
from edgefl.server_stub.downlink import Link
from edgefl.server_stub.identity.sql import SqlRegister
from edgefl.server_stub.migrations import migrate
from edgefl.server_stub.rounds import Place, Round
from edgefl.server_stub.rows import add_traffic, insert_round, insert_version, load_publication
from edgefl.server_stub.storage import other_model
from edgefl.server_stub.tables import (
    assignments,
    deployment,
    devices,
    publications,
    rounds,
    updates,
    versions,
)
from edgefl.server_stub.values import Publication, Traffic, Update, Version
from edgefl.wire import CheckIn, Participant, RoundInfo


class Store:
    """The server's memory. Not for two servers at once: one process owns a database."""

    def __init__(self, url: str) -> None:
        """Open or create the database; StoreError where that is impossible."""
        try:
            self._engine = create_engine(url)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _set_up_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            with self._engine.begin() as c:
                migrate(c)
        except (SQLAlchemyError, ImportError) as exc:
            raise StoreError(f"cannot open the database {url}: {exc}") from exc

    @property
    def engine(self) -> Engine:
        return self._engine

    def close(self) -> None:
        self._engine.dispose()

    def found(self, schema_id: str, model: str, first: Version, at: float) -> None:
        """Make the database that of a model, or check that it is; StoreError in another model's."""
        with self._engine.begin() as c:
            row = c.execute(select(deployment)).mappings().first()
            if row is None:
                c.execute(insert(deployment).values(id=1, schema_id=schema_id, model=model))
                insert_version(c, first, at)
            elif row["schema_id"] != schema_id:
                raise other_model(row["model"], row["schema_id"], model, schema_id)

    def federation(self) -> str:
        """16 hexadecimal digits that tell the rounds of this database from all others; drawn once."""
        with self._engine.begin() as c:
            return rows.federation_name(c)

    def register(self) -> SqlRegister:
        """Who is enrolled."""
        return SqlRegister(self._engine)

    # -- devices and their places

    def put_device(self, message: CheckIn, at: float) -> None:
        """Note that a device was here."""
        seen = {"engine": message.engine, "examples": message.examples, "last_seen": at}
        with self._engine.begin() as c:
            done = c.execute(update(devices).where(devices.c.device == message.device).values(seen))
            if done.rowcount == 0:
                c.execute(insert(devices).values(device=message.device, first_seen=at, **seen))

    def put_place(self, number: int, device: str, place: Place, examples: int) -> None:
        """Store a new or renewed place."""
        values = {"at": place.at, "declined": place.declined, "examples": examples, "reason": ""}
        with self._engine.begin() as c:
            key = assignments.c.assignment == place.id
            if c.execute(update(assignments).where(key).values(values)).rowcount == 0:
                c.execute(
                    insert(assignments).values(assignment=place.id, round=number, device=device, **values)
                )

    def give_back(self, assignment: str, reason: str) -> None:
        with self._engine.begin() as c:
            key = assignments.c.assignment == assignment
            c.execute(update(assignments).where(key).values(declined=True, reason=reason))

    # -- updates

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
        """Store an update; it survives anything from here on."""
        with self._engine.begin() as c:
            c.execute(
                insert(updates).values(
                    assignment=assignment, digest=digest, size=len(frame), loss=loss, at=at, frame=frame
                )
            )
            add_traffic(c, number, t)

    def digest_of(self, number: int, assignment: str) -> str | None:
        """Digest of the update a place of any round sent, if it did."""
        query = (
            select(updates.c.digest)
            .join(assignments)
            .where(assignments.c.round == number, assignments.c.assignment == assignment)
        )
        with self._engine.connect() as c:
            return c.execute(query).scalar()

    def owner_of(self, number: int, assignment: str) -> str | None:
        """The device a round gave a place to, None where it gave no such place."""
        key = (assignments.c.round == number) & (assignments.c.assignment == assignment)
        with self._engine.connect() as c:
            return c.execute(select(assignments.c.device).where(key)).scalar()

    def has_round(self, number: int) -> bool:
        with self._engine.connect() as c:
            return c.execute(select(rounds.c.number).where(rounds.c.number == number)).first() is not None

    def updates_of(self, number: int) -> Iterator[Update]:
        """The frames of a round that is not closed, one at a time, ordered by digest."""
        query = (
            select(updates.c.digest, assignments.c.examples, updates.c.assignment)
            .join(assignments)
            .where(assignments.c.round == number)
            .order_by(updates.c.digest, assignments.c.examples, updates.c.assignment)
        )
        with self._engine.connect() as c:
            found = c.execute(query).all()
            for digest, examples, key in found:
                frame = c.execute(select(updates.c.frame).where(updates.c.assignment == key)).scalar_one()
                yield Update(digest, float(examples), frame, key)

    def put_refusal(self, number: int, assignment: str, reason: str) -> str:
        """Count an update that was refused; the name of the device that sent it, empty where unknown."""
        with self._engine.begin() as c:
            return roll.put_refusal(c, number, assignment, reason)

    # -- rounds

    def open_round(self, state: Round, at: float) -> None:
        with self._engine.begin() as c:
            insert_round(c, state, at)

    def put_deadline(self, state: Round) -> None:
        with self._engine.begin() as c:
            values = {"deadline": state.deadline, "extensions": state.extensions}
            c.execute(update(rounds).where(rounds.c.number == state.number).values(values))

    def close_round(
        self,
        number: int,
        made: Version,
        verdicts: Mapping[str, Verdict],
        following: Round | None,
        at: float,
        t: Traffic,
    ) -> None:
        """In one transaction: the new version, the round closed on it and emptied, the next round open.

        Raises:
            StoreError: the round is closed already.
        """
        with self._engine.begin() as c:
            insert_version(c, made, at)
            add_traffic(c, number, t)
            still_open = (rounds.c.number == number) & rounds.c.closed_at.is_(None)
            done = c.execute(update(rounds).where(still_open).values(closed_at=at, version=made.number))
            if done.rowcount != 1:
                raise StoreError(f"round {number} is closed already; another process uses this database")
            mine = select(assignments.c.assignment).where(assignments.c.round == number)
            c.execute(update(updates).where(updates.c.assignment.in_(mine)).values(frame=None))
            roll.put_verdicts(c, verdicts)
            if following is not None:
                insert_round(c, following, at)

    def current_round(self) -> Round | None:
        """The round that is not closed, as it was when the last answer about it was given."""
        with self._engine.connect() as c:
            row = c.execute(select(rounds).where(rounds.c.closed_at.is_(None))).mappings().first()
            return None if row is None else rows.load_round(c, row)

    def rounds_done(self) -> int:
        with self._engine.connect() as c:
            return int(c.execute(select(func.count()).where(rounds.c.closed_at.is_not(None))).scalar_one())

    def round_infos(self) -> list[RoundInfo]:
        """Every round with what became of it, oldest first."""
        with self._engine.connect() as c:
            places = {r["round"]: dict(r) for r in c.execute(rows.PLACES).mappings()}
            sent = {r["round"]: dict(r) for r in c.execute(rows.SENT).mappings()}
            refused, bounded = roll.refused(c), roll.bounded(c)
            found = c.execute(select(rounds).order_by(rounds.c.number)).mappings().all()
        return [
            rows.info(
                r,
                places.get(r["number"], {}),
                sent.get(r["number"], {}),
                refused.get(r["number"], ()),
                bounded.get(r["number"], 0),
            )
            for r in found
        ]

    def participants(self, number: int) -> tuple[Participant, ...]:
        """Every device that was given a place in a round, in the order they came."""
        with self._engine.connect() as c:
            return roll.participants(c, number)

    def count_devices(self) -> int:
        with self._engine.connect() as c:
            return int(c.execute(select(func.count()).select_from(devices)).scalar_one())

    # -- versions

    def newest_version(self) -> Version:
        with self._engine.connect() as c:
            row = c.execute(select(versions).order_by(versions.c.version.desc()).limit(1)).mappings().one()
        number = row["version"]
        return Version(number, row["parameters"], row["optimizer"], self.publication(number))

    def first_version(self) -> int:
        with self._engine.connect() as c:
            return int(c.execute(select(func.min(versions.c.version))).scalar_one())

    def newest_number(self) -> int:
        with self._engine.connect() as c:
            return int(c.execute(select(func.max(versions.c.version))).scalar_one())

    def publication(self, version: int) -> Publication | None:
        """How devices get to a version, None where they fetch it whole or there is no such version."""
        query = select(publications).where(publications.c.version == version)
        with self._engine.connect() as c:
            row = c.execute(query).mappings().first()
        return None if row is None else load_publication(row)

    def links(self, after: int, upto: int) -> list[Link]:
        """The steps published after one version up to another, oldest first."""
        row = publications.c
        query = select(row.version, row.base, row.frame, row.unit).order_by(row.version)
        with self._engine.connect() as c:
            found = c.execute(query.where(row.version > after, row.version <= upto)).all()
        return [Link(*r) for r in found]

    def parameters(self, version: int) -> bytes | None:
        """Encoded parameters of a version, None where there is no such version."""
        with self._engine.connect() as c:
            return c.execute(select(versions.c.parameters).where(versions.c.version == version)).scalar()


def _begin_sqlite(connection: Connection) -> None:
    """Python's driver would begin at the first change of a row only, and of a table not at all."""
    connection.exec_driver_sql("BEGIN")


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
