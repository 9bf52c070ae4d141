# SPDX-License-Identifier: Apache-2.0
"""One client per folder: two would send each other's updates and spoil each other's residual."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from edgefl.errors import OptionError


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the system lets go of it however the process ends.

    Raises:
        OptionError: another client holds it.
    """
    file = folder / "lock"
    with open(file, "a+", encoding="ascii") as handle:
        if not _lock(handle.fileno()):
            owner = file.read_text(encoding="ascii", errors="replace").strip() or "unknown"
            raise OptionError(
                f"folder {folder} is in use by another client (process {owner}); give each client its own"
            )
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            # Beyond the text, so that others can read it.
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
