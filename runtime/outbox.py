# SPDX-License-Identifier: Apache-2.0
"""An update on its way, kept on disk until the server has answered for it.

A frame and the residual that goes with it are stored in one folder that appears by one rename, before the
first byte is sent. A crash at any moment leaves one of two states: the round has not been worked on, or the
same bytes can be sent again and the residual applies once they are accepted. Equal bytes are counted once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edgefl.delta import Residual
from edgefl.errors import ProtocolError
from edgefl.files import write_atomically
from edgefl.message import Message
from edgefl.rules import number
from edgefl.runtime.residual import ResidualStore
from edgefl.wire import AssignmentId, Count, Number, Version

log = logging.getLogger("edgefl.client")

RESIDUAL = "residual.safetensors"
_FRAME, _NOTE = "update.eflu", "note.json"


@dataclass(frozen=True)
class Note(Message):
    """What is to be remembered of a round while its update is on the way.

    Attributes:
        round: its number.
        assignment: the place the update is for.
        base_version: version it starts from.
        loss: mean training loss.
        seconds: time training took.
        frame_bytes: length of the frame.
    """

    round: Number
    assignment: AssignmentId
    base_version: Version
    loss: Annotated[float, number(-1e38, 1e38)]
    seconds: Annotated[float, number(0.0, 1e9)]
    frame_bytes: Count


@dataclass(frozen=True)
class Pending:
    """An update that the server has not answered for."""

    note: Note
    frame: bytes


class Outbox:
    """At most one pending update of one device."""

    def __init__(self, folder: Path) -> None:
        self._home, self._folder = folder, folder / "pending"
        for name in ("pending.new", "pending.old"):
            shutil.rmtree(folder / name, ignore_errors=True)

    def put(self, pending: Pending, residual: Residual | None) -> None:
        """Store an update with the residual to keep once it is accepted; on return both survive a crash."""
        fresh = self._home / "pending.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        write_atomically(fresh / _FRAME, pending.frame)
        if residual is not None:
            ResidualStore(fresh / RESIDUAL).save(residual)
        write_atomically(fresh / _NOTE, pending.note.to_bytes())
        fresh.rename(self._folder)
        _flush(self._home)

    def get(self) -> Pending | None:
        """The update that waits for an answer, if there is one. A damaged one is dropped and logged."""
        if not self._folder.exists():
            return None
        try:
            note = Note.from_bytes((self._folder / _NOTE).read_bytes())
            frame = (self._folder / _FRAME).read_bytes()
            if len(frame) != note.frame_bytes:
                raise ProtocolError(f"the frame has {len(frame)} bytes, {note.frame_bytes} were written")
        except (OSError, ProtocolError) as exc:
            log.warning("pending update in %s dropped: %s", self._folder, exc)
            self._remove()
            return None
        return Pending(note, frame)

    def settle(self, accepted: bool) -> None:
        """The server has answered: keep the new residual if it took the update, else the one from before."""
        if accepted:
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._folder / RESIDUAL, self._home / RESIDUAL)
        self._remove()

    def _remove(self) -> None:
        old = self._home / "pending.old"
        self._folder.rename(old)
        _flush(self._home)
        shutil.rmtree(old, ignore_errors=True)


def _flush(folder: Path) -> None:
    # Some systems cannot open folders; there a rename is as durable as it gets.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
