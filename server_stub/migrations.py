# SPDX-License-Identifier: Apache-2.0
"""The schema of the database by number: what an older one lacks is added in order, in one transaction.

A change of `tables` is one more step at the end of `STEPS`; steps that were released are never changed. A new
database gets today's tables at once, and a test sees to it that the steps lead to the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, Connection, Table, insert, inspect, select, text, update

from edgefl.errors import StoreError
from edgefl.server_stub import tables

Step = Callable[[Connection], None]


def migrate(c: Connection) -> None:
    """Bring a database to today's schema, a new one too.

    Raises:
        StoreError: a newer release made it.
    """
    there = set(inspect(c).get_table_names())
    tables.schema_version.create(c, checkfirst=True)
    found = c.execute(select(tables.schema_version.c.version)).scalar()
    if found is None:
        # Releases before the first number left no row.
        found = 0 if tables.versions.name in there else len(STEPS)
        c.execute(insert(tables.schema_version).values(id=1, version=found))
        if found:
            tables.metadata.create_all(c)
    if found > len(STEPS):
        raise StoreError(
            f"the database has schema {found}, this release knows up to {len(STEPS)}; a newer edgefl made it"
        )
    for step in STEPS[found:]:
        step(c)
    c.execute(update(tables.schema_version).values(version=len(STEPS)))


def added(*new: Table) -> Step:
    """A step that makes tables, as they are in `tables` today."""

    def step(c: Connection) -> None:
        for table in new:
            table.create(c, checkfirst=True)

    return step


def widened(table: Table, *names: str) -> Step:
    """A step that adds columns, which may be empty or have a default of the database's."""

    def step(c: Connection) -> None:
        known = {column["name"] for column in inspect(c).get_columns(table.name)}
        for name in names:
            # A table made by an earlier step has them already.
            if name not in known:
                c.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {_definition(c, table.c[name])}"))

    return step


def _definition(c: Connection, column: Column[Any]) -> str:
    return str(c.dialect.ddl_compiler(c.dialect, None).get_column_specification(column))  # type: ignore[arg-type]


STEPS: tuple[Step, ...] = (
    added(tables.refusals, tables.verdicts, tables.federation),
    widened(tables.rounds, "terms"),
    added(tables.tokens, tables.identities, tables.admins),
    widened(tables.deployment, "revision", "owner", "clock", "wall"),
    widened(tables.devices, "labels"),
    widened(tables.rounds, "staleness", "patience"),
    widened(tables.updates, "round"),
    added(tables.evaluations, tables.evaluators),
    widened(tables.rounds, "parties"),
    widened(tables.versions, "parent", "restores", "bundle", "pinned"),
    added(tables.registry),
)
