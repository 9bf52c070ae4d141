# SPDX-License-Identifier: Apache-2.0
"""A disk on which the power can be cut, or the room run out, at every single operation."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

OPERATIONS = ("open", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "truncate")


class Crash(BaseException):
    """The device loses power."""


class Disk:
    """Counts what is done to files; from operation `at` on, nothing works any more.

    Attributes:
        count: operations so far.
        at: the first that fails; 0 for none.
        until: the first that works again, where the room runs out; a crash lasts.
        full: the room runs out, instead of the power.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = self.at = self.until = 0
        self.full = False
        # Hundreds of runs need not wait for a real disk.
        monkeypatch.setattr(os, "fsync", lambda _: None)
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name), name))
        monkeypatch.setattr(os, "fdopen", self._opened(os.fdopen))

    def arm(self, at: int, until: int = 0, full: bool = False) -> None:
        """Count from here on."""
        self.count, self.at, self.until, self.full = 0, at, until, full

    def point(self) -> None:
        """One operation is about to happen."""
        self.count += 1
        if not self.at or self.count < self.at or (self.full and self.count >= self.until):
            return
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise Crash

    def _counted(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def operation(*args: Any, **options: Any) -> Any:
            writes = name != "open" or args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
            # What makes room works on a full disk too.
            if writes and not (self.full and name in ("unlink", "rmdir", "truncate")):
                self.point()
            return call(*args, **options)

        return operation

    def _opened(self, fdopen: Callable[..., Any]) -> Callable[..., Any]:
        def opened(*args: Any, **options: Any) -> Any:
            file = fdopen(*args, **options)
            return _File(file, self) if "w" in args[1] else file

        return opened


class _File:
    """A file of which half is written when the power goes."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: bytes) -> None:
        try:
            self._disk.point()
        except BaseException:
            self._file.write(data[: len(data) // 2])
            raise
        self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
