# SPDX-License-Identifier: Apache-2.0
"""Files that a crash leaves old or new, never half of either; and files that one process holds."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from edgefl.errors import DiskFull

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_atomically(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace a file by way of a temporary one beside it, flushed to disk before the rename.

    Args:
        private: only its owner may read it.

    Raises:
        DiskFull: there is no room for it; the old file is then untouched.
        OSError: the folder is missing or read-only; so it is then.
    """
    with disk_space(path):
        _replace(path, data, private)


def write_where_it_lies(path: Path, data: bytes) -> None:
    """Put a few bytes into the place of a file's own, for which a full disk has room on most systems. Whoever
    reads at that moment, or after a crash in it, may find a mixture.

    Raises:
        OSError: there is no such file, or no room even so.
    """
    with open(path, "r+b", buffering=0) as file:
        file.write(data)
        file.truncate(len(data))


@contextlib.contextmanager
def disk_space(where: Path) -> Iterator[None]:
    """Raise DiskFull where a write fails for want of room."""
    try:
        yield
    except DiskFull:
        raise
    except OSError as exc:
        if exc.errno in _FULL:
            raise DiskFull(f"no room on the disk for {where}: {exc}") from exc
        raise


if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Lock an open file where nobody else holds it; closing the file lets go, and so does dying."""
        try:
            # Beyond the text, so that others can read it.
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock an open file where nobody else holds it; closing the file lets go, and so does dying."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def take_lock(path: Path, waits_s: Iterable[float]) -> IO[bytes] | str:
    """Lock a file, made where it is not there, and leave this process's number in it for people.

    Args:
        waits_s: seconds to wait before each try.

    Returns:
        The open file, which holds the lock until it is closed; or who holds it instead, as its number.

    Raises:
        DiskFull: there is no room for the file.
    """
    with disk_space(path):
        handle = open(path, "a+b", buffering=0)  # noqa: SIM115, the caller closes it
    for wait_s in waits_s:
        time.sleep(wait_s)
        if try_lock(handle.fileno()):
            # A full disk has no room even for the number.
            with contextlib.suppress(OSError):
                handle.truncate(0)
                handle.write(f"{os.getpid()}\n".encode())
            return handle
    with handle:
        handle.seek(0)
        return handle.read(100).decode("ascii", "replace").strip() or "unknown"


def sync_folder(folder: Path) -> None:
    """Have renames in a folder on disk, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(path: Path, data: bytes, private: bool) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o600 if private else _mode(path))
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def _mode(path: Path) -> int:
    """The permissions of the file being replaced, else what a plain new file would get."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
