# SPDX-License-Identifier: Apache-2.0
"""One server per SQLite database: a lock that the system lets go of however the process ends."""

from __future__ import annotations

from pathlib import Path

from edgefl.errors import StoreError, StoreLost
from edgefl.files import take_lock

_WAITS_S = (0.0, 0.05, 0.2, 0.5)
"""A server that was killed holds its lock for a moment more, and so does a device's file system."""


class Ownership:
    """Of one database file, until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take it; StoreError where another server has it."""
        self._path = path
        held = take_lock(path.with_name(f"{path.name}-owner"), _WAITS_S)
        if isinstance(held, str):
            raise StoreError(
                f"the database {path} is in use by another server (process {held}); stop that one, or give "
                "each its own database, or both one of PostgreSQL"
            )
        self._handle = held
        self._file = _identity(path)

    def check(self) -> None:
        """StoreLost where the file is no longer the one that was opened."""
        if _identity(self._path) != self._file:
            raise StoreLost(f"the database {self._path} was deleted or replaced while the server used it")

    def release(self) -> None:
        self._handle.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
