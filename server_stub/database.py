# SPDX-License-Identifier: Apache-2.0
"""One database and its transactions: SQLite in WAL mode for one server, PostgreSQL for one or more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from edgefl.errors import MissingDependency, StoreError
from edgefl.server_stub.migrations import migrate

_WRITES = "edgefl_writes"
# The log is copied back every 40 MB: a commit that has to takes twice as long.
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "busy_timeout=30000",
    "wal_autocheckpoint=10000",
)
# Any two numbers: locks of other applications in the same database are others.
_STARTING, _CLOSING = 0x65646765, 0x666C


class Database:
    """Attributes:
    shared: other servers may work on it at the same time.
    path: of an SQLite file, None for a database elsewhere.
    """

    def __init__(self, url: str) -> None:
        """Open or create it, with today's tables; StoreError where that is impossible."""
        try:
            where = make_url(url)
            if where.drivername == "postgresql":
                where = where.set(drivername="postgresql+psycopg")
            self.shared = where.get_backend_name() != "sqlite"
            self.path = None if self.shared else where.database
            pool: dict[str, Any] = {"pool_size": 8, "max_overflow": 64} if self.shared else {}
            self._engine = create_engine(where, pool_pre_ping=self.shared, **pool)
            if not self.shared:
                event.listen(self._engine, "connect", _set_up_sqlite)
                event.listen(self._engine, "begin", _begin_sqlite)
            self._writer = self._engine.execution_options(**{_WRITES: True})
            self._local = threading.local()
            with self.writing() as c:
                self.take_turns(c)
                migrate(c)
        except ImportError as exc:
            raise MissingDependency("psycopg", "postgres", "a PostgreSQL database") from exc
        except SQLAlchemyError as exc:
            raise StoreError(f"cannot open the database {_without_password(url)}: {exc}") from exc

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that changes nothing; this thread's own one where it has begun one."""
        if (mine := self._mine()) is not None:
            yield mine
            return
        with self._engine.connect() as c:
            yield c

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, on disk at the end; within another one of this thread it is part of that."""
        if (mine := self._mine()) is not None:
            yield mine
            return
        with self._writer.begin() as c:
            self._local.connection = c
            try:
                yield c
            finally:
                self._local.connection = None

    @contextlib.contextmanager
    def closing(self, number: int) -> Iterator[bool]:
        """Whether this server is the one that closes a round; it is until the end, or until it dies."""
        if not self.shared:
            yield True
            return
        with self._engine.connect() as c:
            lock = text("SELECT pg_try_advisory_xact_lock(:what, :number)")
            yield bool(c.execute(lock, {"what": _CLOSING, "number": number}).scalar())

    def take_turns(self, c: Connection) -> None:
        """Have servers that start at the same time do what follows in a transaction one after the other."""
        if self.shared:
            c.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _STARTING})

    def _mine(self) -> Connection | None:
        return getattr(self._local, "connection", None)


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string()
    except SQLAlchemyError:
        return "of this URL"


def _begin_sqlite(connection: Connection) -> None:
    """Python's driver would begin at the first change of a row only, and of a table not at all.

    Whoever will write says so at once: two readers that both want to go on as writers would wait for each
    other.
    """
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "wal_autocheckpoint=10000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
