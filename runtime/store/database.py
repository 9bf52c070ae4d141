# SPDX-License-Identifier: Apache-2.0
"""The SQLite file of a store: its tables, its transactions, and that nothing deleted stays in it.

A rollback journal and not a write-ahead log: a log would keep pages of deleted examples until it is
truncated, which another process's reading can put off.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgefl.errors import StoreError

BUSY_S = 30.0
"""How long one process waits for another's transaction."""

_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    # A number is never given twice, so that whoever reads by number reads no other example.
    "CREATE TABLE examples (id INTEGER PRIMARY KEY AUTOINCREMENT, added REAL NOT NULL, key BLOB NOT NULL, "
    "label BLOB NOT NULL, digest BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, data BLOB NOT NULL)",
    "CREATE INDEX by_label ON examples (label)",
    "CREATE INDEX by_key ON examples (key)",
    "CREATE INDEX by_time ON examples (added)",
    "CREATE TABLE totals (examples INTEGER NOT NULL, bytes INTEGER NOT NULL, ever INTEGER NOT NULL)",
    "INSERT INTO totals VALUES (0, 0, 0)",
    "CREATE TRIGGER counted AFTER INSERT ON examples "
    "BEGIN UPDATE totals SET examples = examples + 1, bytes = bytes + NEW.size, ever = ever + 1; END",
    "CREATE TRIGGER discounted AFTER DELETE ON examples "
    "BEGIN UPDATE totals SET examples = examples - 1, bytes = bytes - OLD.size; END",
    # What devices made of the examples, and up to which act of forgetting each has seen.
    "CREATE TABLE derived (path TEXT PRIMARY KEY, kind TEXT NOT NULL, seen INTEGER NOT NULL)",
    "CREATE TABLE gone (path TEXT NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (path, digest))",
)


class Database:
    """One connection, for all threads of a process; processes wait for one another."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """
        Raises:
            StoreError: there is no such file, or it is no store.
        """
        self.path, self._lock = path, threading.RLock()
        if not create and not path.exists():
            raise StoreError(f"there is no store {path}")
        with self._told():
            # Nobody else on the device is to read the examples, from the first byte on.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._told():
                for setting in ("auto_vacuum = FULL", "secure_delete = ON", "synchronous = FULL"):
                    self._connection.execute(f"PRAGMA {setting}")
                with self.writing():
                    if not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'examples'"):
                        for statement in _TABLES:
                            self._connection.execute(statement)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction: all of it happens, or nothing does. StoreError where the file cannot be written."""
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, statement: str, given: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a statement gives; StoreError where the file cannot be used."""
        with self._lock, self._told():
            return self._connection.execute(statement, given).fetchall()

    def value(self, statement: str, given: Sequence[Any] = ()) -> Any:
        """The only value of the only row."""
        return self.rows(statement, given)[0][0]

    def change(self, statement: str, given: Sequence[Any] = ()) -> int:
        """How many rows a statement changed."""
        with self._lock, self._told():
            return self._connection.execute(statement, given).rowcount

    # -- the small facts

    def fact(self, name: str) -> bytes | None:
        """What was kept under a name."""
        found = self.rows("SELECT value FROM meta WHERE name = ?", (name,))
        return bytes(found[0][0]) if found else None

    def keep(self, name: str, value: bytes) -> None:
        """Keep something under a name."""
        self.change("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise StoreError(f"store {self.path} cannot be used: {exc}") from exc
