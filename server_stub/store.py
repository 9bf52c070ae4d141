# SPDX-License-Identifier: Apache-2.0
"""Durable storage of rounds, updates and versions, by SQLAlchemy Core.

Statements are plain SQL, the same for SQLite and PostgreSQL. A method returns only after its transaction is
on disk, or is part of an `event`; each leaves a state that a restart can go on from.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import DatabaseError

from edgefl.errors import StoreError, StoreLost
from edgefl.server_stub import roll, rows
from edgefl.server_stub.aggregators import Verdict
from edgefl.server_stub.clock import Moment
from edgefl.server_stub.database import Database
from edgefl.server_stub.downlink import CHAIN, Link
from edgefl.server_stub.evaluation.sql import SqlRecords
from edgefl.server_stub.identity.sql import SqlRegister
from edgefl.server_stub.ownership import Ownership
from edgefl.server_stub.registry.sql import SqlRecords as Decisions
from edgefl.server_stub.rounds import Place, Round
from edgefl.server_stub.rows import add_traffic, insert_round, insert_version, load_publication
from edgefl.server_stub.selection import Candidate, labels_of
from edgefl.server_stub.storage import other_model
from edgefl.server_stub.tables import (
    assignments,
    counts_in,
    deployment,
    devices,
    publications,
    rounds,
    updates,
    versions,
)
from edgefl.server_stub.terms import Terms
from edgefl.server_stub.values import Head, Publication, Traffic, Update, Version
from edgefl.wire import CheckIn, Participant, RoundInfo


class Store:
    """The server's memory. Who runs rounds on it says so by `own`; others may read."""

    def __init__(self, url: str) -> None:
        """Open or create the database; StoreError where that is impossible."""
        self._database = Database(url)
        self._ownership: Ownership | None = None
        self._name: str | None = None

    @property
    def shared(self) -> bool:
        return self._database.shared

    def close(self) -> None:
        self._database.close()
        if self._ownership is not None:
            self._ownership.release()

    def own(self) -> None:
        """Be the server of an SQLite database; StoreError where another one is. PostgreSQL's may be many."""
        if self._database.path is None:
            return
        self._ownership, self._name = Ownership(Path(self._database.path)), secrets.token_hex(16)

    @contextlib.contextmanager
    def event(self) -> Iterator[Head]:
        """One transaction on the locked row of the deployment."""
        with self._writing() as c:
            yield self._head(c, locked=True)
        # What went to a file that was deleted is no more on disk than what was never written.
        self._check()

    def head(self) -> Head:
        with self._reading() as c:
            head = self._head(c, locked=False)
        self._check()
        return head

    def put_head(self, head: Head, moment: Moment) -> None:
        values = {"revision": head.revision, "clock": moment.server, "wall": moment.wall}
        with self._writing() as c:
            c.execute(update(deployment).values(values))

    def last_alive(self) -> Moment | None:
        with self._reading() as c:
            row = c.execute(select(deployment.c.clock, deployment.c.wall)).first()
        return None if row is None or row.clock is None else Moment(row.clock, row.wall)

    def closing(self, number: int) -> AbstractContextManager[bool]:
        return self._database.closing(number)

    def _head(self, c: Connection, locked: bool) -> Head:
        row = deployment.c
        query = select(row.revision, row.clock, row.owner)
        try:
            found = c.execute(query.with_for_update() if locked else query).first()
        except DatabaseError:
            # A new connection to a deleted file finds an empty one.
            self._check()
            raise
        if found is None or found.owner != self._name:
            raise StoreLost("another server has taken over the database")
        return Head(found.revision, found.clock or 0.0)

    def found(self, schema_id: str, model: str, first: Version, at: float) -> None:
        """Make the database that of a model, or check that it is; StoreError in another model's."""
        with self._writing() as c:
            self._database.take_turns(c)
            row = c.execute(select(deployment)).mappings().first()
            if row is None:
                c.execute(insert(deployment).values(id=1, schema_id=schema_id, model=model))
                insert_version(c, first, at)
            elif row["schema_id"] != schema_id:
                raise other_model(row["model"], row["schema_id"], model, schema_id)
            if not self.shared:
                c.execute(update(deployment).values(owner=self._name))

    def federation(self) -> str:
        """16 hexadecimal digits that tell the rounds of this database from all others; drawn once."""
        with self._writing() as c:
            return rows.federation_name(c)

    def register(self) -> SqlRegister:
        """Who is enrolled."""
        return SqlRegister(self._database)

    def evaluations(self) -> SqlRecords:
        """Versions that devices measured."""
        return SqlRecords(self._database)

    def registry(self) -> Decisions:
        """What was decided about versions."""
        return Decisions(self._database)

    # -- devices and their places

    def put_device(self, message: CheckIn, at: float) -> None:
        """Note that a device was here."""
        seen = {
            "engine": message.engine,
            "examples": message.examples,
            "labels": message.labels,
            "last_seen": at,
        }
        with self._writing() as c:
            done = c.execute(update(devices).where(devices.c.device == message.device).values(seen))
            if done.rowcount == 0:
                c.execute(insert(devices).values(device=message.device, first_seen=at, **seen))

    def candidates(self, since: float) -> list[Candidate]:
        """Devices that checked in since a moment."""
        served = select(assignments.c.device, func.max(assignments.c.at).label("served"))
        found = served.group_by(assignments.c.device).subquery()
        row = devices.c
        query = select(row.device, row.examples, found.c.served, row.engine, row.labels)
        query = query.select_from(devices.outerjoin(found, found.c.device == row.device))
        with self._reading() as c:
            return [
                Candidate(device, examples, at, labels_of(engine, labels))
                for device, examples, at, engine, labels in c.execute(query.where(row.last_seen >= since))
            ]

    def put_place(self, number: int, device: str, place: Place, examples: int) -> None:
        """Store a new or renewed place."""
        values = {"at": place.at, "declined": place.declined, "examples": examples, "reason": ""}
        with self._writing() as c:
            key = assignments.c.assignment == place.id
            if c.execute(update(assignments).where(key).values(values)).rowcount == 0:
                c.execute(
                    insert(assignments).values(assignment=place.id, round=number, device=device, **values)
                )

    def give_back(self, assignment: str, reason: str) -> None:
        with self._writing() as c:
            key = assignments.c.assignment == assignment
            # PostgreSQL's text has no NUL.
            shown = reason.replace("\0", "\ufffd")
            c.execute(update(assignments).where(key).values(declined=True, reason=shown))

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
        with self._writing() as c:
            c.execute(
                insert(updates).values(
                    assignment=assignment,
                    digest=digest,
                    size=len(frame),
                    loss=loss,
                    at=at,
                    frame=frame,
                    round=number,
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
        with self._reading() as c:
            return c.execute(query).scalar()

    def owner_of(self, number: int, assignment: str) -> str | None:
        """The device a round gave a place to, None where it gave no such place."""
        key = (assignments.c.round == number) & (assignments.c.assignment == assignment)
        with self._reading() as c:
            return c.execute(select(assignments.c.device).where(key)).scalar()

    def has_round(self, number: int) -> bool:
        with self._reading() as c:
            return c.execute(select(rounds.c.number).where(rounds.c.number == number)).first() is not None

    def updates_of(self, number: int) -> list[Update]:
        """The updates of a round that is not closed, ordered by digest."""
        query = (
            select(updates.c.digest, assignments.c.examples, updates.c.assignment, rounds.c.base_version)
            .select_from(updates.join(assignments).join(rounds, rounds.c.number == assignments.c.round))
            .where(counts_in(number))
            .order_by(updates.c.digest, assignments.c.examples, updates.c.assignment)
        )
        with self._reading() as c:
            found = c.execute(query)
            return [Update(digest, float(examples), key, base) for digest, examples, key, base in found]

    def frame(self, assignment: str) -> bytes:
        with self._reading() as c:
            query = select(updates.c.frame).where(updates.c.assignment == assignment)
            return bytes(c.execute(query).scalar_one())

    def put_refusal(self, number: int, assignment: str, reason: str) -> str:
        """Count an update that was refused; the name of the device that sent it, empty where unknown."""
        with self._writing() as c:
            return roll.put_refusal(c, number, assignment, reason)

    # -- rounds

    def open_round(self, state: Round, at: float) -> None:
        with self._writing() as c:
            insert_round(c, state, at)

    def put_deadline(self, state: Round) -> None:
        with self._writing() as c:
            values = {"deadline": state.deadline, "extensions": state.extensions}
            c.execute(update(rounds).where(rounds.c.number == state.number).values(values))

    def close_round(
        self,
        number: int,
        made: Version | None,
        verdicts: Mapping[str, Verdict],
        following: Round | None,
        at: float,
        t: Traffic,
    ) -> None:
        """See `Storage`.

        Raises:
            StoreError: the round is closed already.
        """
        with self._writing() as c:
            if made is not None:
                insert_version(c, made, at)
            add_traffic(c, number, t)
            still_open = (rounds.c.number == number) & rounds.c.closed_at.is_(None)
            version = None if made is None else made.number
            done = c.execute(update(rounds).where(still_open).values(closed_at=at, version=version))
            if done.rowcount != 1:
                raise StoreError(f"round {number} is closed already; another process uses this database")
            mine = select(updates.c.assignment).join(assignments).where(counts_in(number))
            c.execute(update(updates).where(updates.c.assignment.in_(mine)).values(frame=None))
            roll.put_verdicts(c, verdicts)
            if following is not None:
                insert_round(c, following, at)

    def current_round(self) -> Round | None:
        """The round that is not closed, as it was when the last answer about it was given."""
        with self._reading() as c:
            row = c.execute(select(rounds).where(rounds.c.closed_at.is_(None))).mappings().first()
            return None if row is None else rows.load_round(c, row)

    def rounds_done(self) -> int:
        with self._reading() as c:
            return int(c.execute(select(func.count()).where(rounds.c.closed_at.is_not(None))).scalar_one())

    def terms(self, number: int) -> Terms | None:
        with self._reading() as c:
            stored = c.execute(select(rounds.c.terms).where(rounds.c.number == number)).scalar()
        return None if stored is None else rows.load_terms(stored)

    def closed_terms(self) -> list[Terms]:
        query = select(rounds.c.terms).where(rounds.c.version.is_not(None), rounds.c.terms.is_not(None))
        with self._reading() as c:
            return [
                rows.load_terms(stored) for stored in c.execute(query.order_by(rounds.c.number)).scalars()
            ]

    def put_draw(self, state: Round) -> None:
        with self._writing() as c:
            values = rows.planned(state)
            c.execute(update(rounds).where(rounds.c.number == state.number).values(values))

    def round_infos(self, number: int | None = None) -> list[RoundInfo]:
        """Every round with what became of it, oldest first; or only one."""
        with self._reading() as c:
            return rows.infos(c, number)

    def participants(self, number: int) -> tuple[Participant, ...]:
        """Every device that was given a place in a round, in the order they came."""
        with self._reading() as c:
            return roll.participants(c, number)

    def count_devices(self) -> int:
        with self._reading() as c:
            return int(c.execute(select(func.count()).select_from(devices)).scalar_one())

    # -- versions

    def prune(self, keep: int) -> None:
        """See `Storage`."""
        with self._writing() as c:
            rows.prune(c, max(keep, CHAIN + 1))

    def put_version(self, made: Version, at: float) -> None:
        with self._writing() as c:
            insert_version(c, made, at)

    def newest_version(self) -> Version:
        with self._reading() as c:
            row = c.execute(select(versions).order_by(versions.c.version.desc()).limit(1)).mappings().one()
        number = row["version"]
        parameters, optimizer = bytes(row["parameters"]), bytes(row["optimizer"])
        return Version(number, parameters, optimizer, self.publication(number), restores=row["restores"])

    def first_version(self) -> int:
        with self._reading() as c:
            return int(c.execute(select(func.min(versions.c.version))).scalar_one())

    def newest_number(self) -> int:
        with self._reading() as c:
            return int(c.execute(select(func.max(versions.c.version))).scalar_one())

    def publication(self, version: int) -> Publication | None:
        """How devices get to a version, None where they fetch it whole or there is no such version."""
        query = select(publications).where(publications.c.version == version)
        with self._reading() as c:
            row = c.execute(query).mappings().first()
        return None if row is None else load_publication(row)

    def links(self, after: int, upto: int) -> list[Link]:
        """The steps published after one version up to another, oldest first."""
        row = publications.c
        query = select(row.version, row.base, row.frame, row.unit).order_by(row.version)
        with self._reading() as c:
            found = c.execute(query.where(row.version > after, row.version <= upto)).all()
        return [Link(*r) for r in found]

    def parameters(self, version: int) -> bytes | None:
        """Encoded parameters of a version, None where there is no such version."""
        with self._reading() as c:
            found = c.execute(select(versions.c.parameters).where(versions.c.version == version)).scalar()
            return bytes(found) if found else None

    # -- inside

    def _check(self) -> None:
        if self._ownership is not None:
            self._ownership.check()

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._database.reading()

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._database.writing()
