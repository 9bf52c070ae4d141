# SPDX-License-Identifier: Apache-2.0
"""One server per SQLite database: a lock that the system lets go of however the process ends."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from edgefl.errors import StoreError, StoreLost
from edgefl.files import try_lock

_WAITS_S = (0.0, 0.05, 0.2, 0.5)
"""A server that was killed holds its lock for a moment more, and so does a device's file system."""


class Ownership:
    """Of one database file, until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        """Take it; StoreError where another server has it."""
        self._path = path
        self._handle = open(path.with_name(f"{path.name}-owner"), "a+b", buffering=0)  # noqa: SIM115
        if not self._lock_soon():
            self._handle.seek(0)
            owner = self._handle.read(100).decode("ascii", "replace").strip() or "unknown"
            self._handle.close()
            raise StoreError(
                f"the database {path} is in use by another server (process {owner}); stop that one, or give "
                "each its own database, or both one of PostgreSQL"
            )
        # For people; a full disk has no room even for that.
        with contextlib.suppress(OSError):
            self._handle.truncate(0)
            self._handle.write(f"{os.getpid()}\n".encode())
        self._file = _identity(path)

    def check(self) -> None:
        """StoreLost where the file is no longer the one that was opened."""
        if _identity(self._path) != self._file:
            raise StoreLost(f"the database {self._path} was deleted or replaced while the server used it")

    def release(self) -> None:
        self._handle.close()

    def _lock_soon(self) -> bool:
        for wait_s in _WAITS_S:
            time.sleep(wait_s)
            if try_lock(self._handle.fileno()):
                return True
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
