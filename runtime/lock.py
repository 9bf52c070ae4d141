# SPDX-License-Identifier: Apache-2.0
"""One client per folder: two would send each other's updates and spoil each other's residual."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgefl.errors import OptionError
from edgefl.files import disk_space, take_lock, try_lock


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
    # Whoever asks for the owner holds the lock for a moment too.
    held = take_lock(file, (0.0, 0.01, 0.1))
    if isinstance(held, str):
        raise OptionError(
            f"folder {folder} is in use by another client (process {held}); give each client its own"
        )
    with held:
        yield


def owner(folder: Path) -> str | None:
    """The process that holds a folder's lock; None where nobody does. The folder is left as it is."""
    try:
        with open(folder / "lock", "r+", encoding="ascii", errors="replace") as handle:
            return None if try_lock(handle.fileno()) else handle.read().strip() or "unknown"
    except OSError:
        return None
