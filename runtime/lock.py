# SPDX-License-Identifier: Apache-2.0
"""One client per folder: two would send each other's updates and spoil each other's residual."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from edgefl.errors import OptionError
from edgefl.files import disk_space, try_lock


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, and make the folder; the system lets go of it however the process ends.

    Raises:
        DiskFull: there is no room for the lock's file.
        OptionError: another client holds it.
    """
    file = folder / "lock"
    with disk_space(file):
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(file, "a+b", buffering=0)  # noqa: SIM115
    with handle:
        if not _lock_soon(handle.fileno()):
            owner = file.read_text(encoding="ascii", errors="replace").strip() or "unknown"
            raise OptionError(
                f"folder {folder} is in use by another client (process {owner}); give each client its own"
            )
        # The number is for people; a full disk has no room even for that.
        with contextlib.suppress(OSError):
            handle.truncate(0)
            handle.write(f"{os.getpid()}\n".encode())
        yield


def _lock_soon(descriptor: int) -> bool:
    """Whoever asks for the owner holds the lock for a moment too."""
    for wait_s in (0.01, 0.1):
        if try_lock(descriptor):
            return True
        time.sleep(wait_s)
    return try_lock(descriptor)


def owner(folder: Path) -> str | None:
    """The process that holds a folder's lock; None where nobody does. The folder is left as it is."""
    try:
        with open(folder / "lock", "r+", encoding="ascii", errors="replace") as handle:
            return None if try_lock(handle.fileno()) else handle.read().strip() or "unknown"
    except OSError:
        return None
