# SPDX-License-Identifier: Apache-2.0
"""An update on its way, kept on disk until the server has answered for it.

All that a round gives, the frame, the residual that goes with it, personal parameters and buffers, is stored
in one folder that appears by one rename, before the first byte is sent. Another rename says what the server
answered; only then does each file take its place. A crash at any moment leaves one of three states: the round
has not been worked on, the same bytes can be sent again (equal bytes are counted once), or the answer is
known and the files still have to move.
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
from edgefl.files import disk_space, sync_folder, write_atomically
from edgefl.message import Message
from edgefl.parameters import Arrays
from edgefl.rules import number
from edgefl.runtime.algorithms import Drift
from edgefl.runtime.belongings import DRIFT, PERSONAL, RESIDUAL, Belongings
from edgefl.runtime.owned import set_aside
from edgefl.wire import AssignmentId, Count, Federation, Loss, Number, Version

log = logging.getLogger("edgefl.client")

_FRAME, _NOTE = "update.eflu", "note.json"
_ACCEPTED, _REFUSED = "pending.accepted", "pending.refused"


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
        federation: whose round it is.
    """

    round: Number
    assignment: AssignmentId
    base_version: Version
    loss: Loss
    seconds: Annotated[float, number(0.0, 1e9)]
    frame_bytes: Count
    federation: Federation = ""


@dataclass(frozen=True)
class Pending:
    """An update that the server has not answered for."""

    note: Note
    frame: bytes


class Outbox:
    """At most one pending update of one device. Only to be used under the folder's lock.

    `put` and `settle` raise DiskFull where there is no room; both may then be called again.
    """

    def __init__(self, folder: Path) -> None:
        self._home, self._folder = folder, folder / "pending"

    def recover(self) -> None:
        """Finish what a crash cut short."""
        for name in ("pending.new", "pending.old"):
            shutil.rmtree(self._home / name, ignore_errors=True)
        self._move()

    def put(
        self,
        pending: Pending,
        belongings: Belongings,
        residual: Residual | None,
        personal: Arrays,
        drift: Drift | None = None,
    ) -> None:
        """Store an update with what the device keeps to itself; on return all of it survives a crash.

        Args:
            residual, drift: to be kept once the update is accepted.
            personal: to be kept whatever the server answers.
        """
        fresh = self._home / "pending.new"
        with disk_space(fresh):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            write_atomically(fresh / _FRAME, pending.frame)
            belongings.within(fresh).put(residual, personal, drift)
            write_atomically(fresh / _NOTE, pending.note.to_bytes())
            fresh.rename(self._folder)
            sync_folder(self._home)

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
            self._drop()
            return None
        return Pending(note, frame)

    def settle(self, accepted: bool) -> None:
        """The server has answered: the round's files take their place.

        The new residual and drift do so only if the update was accepted; else those from before still apply.
        """
        with disk_space(self._folder):
            if self._folder.exists():
                self._folder.rename(self._home / (_ACCEPTED if accepted else _REFUSED))
                sync_folder(self._home)
            self._move()

    def set_aside(self) -> None:
        """Have the update out of the way: it is another federation's."""
        set_aside(self._folder)

    def _move(self) -> None:
        for name, files in ((_ACCEPTED, (PERSONAL, RESIDUAL, DRIFT)), (_REFUSED, (PERSONAL,))):
            folder = self._home / name
            if not folder.exists():
                continue
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(folder / file, self._home / file)
            sync_folder(self._home)
            shutil.rmtree(folder, ignore_errors=True)

    def _drop(self) -> None:
        old = self._home / "pending.old"
        self._folder.rename(old)
        sync_folder(self._home)
        shutil.rmtree(old, ignore_errors=True)
