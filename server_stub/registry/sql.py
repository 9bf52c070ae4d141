# SPDX-License-Identifier: Apache-2.0
"""Decisions about versions in the server's database."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from edgefl.server_stub.database import Database
from edgefl.server_stub.registry.records import Entry, Standing
from edgefl.server_stub.tables import registry, versions


class SqlRecords:
    """See `Records`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def standing(self) -> Standing:
        with self._database.reading() as c:
            row = c.execute(select(registry.c.promoted, registry.c.held)).first()
            return Standing() if row is None else Standing(*row)

    def put_standing(self, standing: Standing) -> None:
        with self._database.writing() as c:
            if c.execute(update(registry).values(vars(standing))).rowcount == 0:
                c.execute(insert(registry).values(id=1, **vars(standing)))

    def pin(self, version: int, pinned: bool) -> None:
        with self._database.writing() as c:
            c.execute(update(versions).where(versions.c.version == version).values(pinned=pinned))

    def entries(self) -> list[Entry]:
        row = versions.c
        query = select(
            row.version, row.parent, row.restores, row.bundle, row.made_at, row.pinned, row.parameters != b""
        )
        with self._database.reading() as c:
            found = c.execute(query.order_by(row.version))
            return [Entry(n, p, r, bundle or "", at, pin, kept) for n, p, r, bundle, at, pin, kept in found]
