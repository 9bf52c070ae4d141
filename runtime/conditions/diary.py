# SPDX-License-Identifier: Apache-2.0
"""What a device did, for its owner to read: a local file of limited size that nobody else is shown.

One JSON object per line, oldest first. Beside it, a file that counts the updates of the last day: that one
is replaced as a whole, since a limit hangs on it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from edgefl.errors import ProtocolError
from edgefl.files import write_atomically
from edgefl.message import Message
from edgefl.rules import Rule, number, optional, refusal, text
from edgefl.runtime.conditions.policy import DAY_S, Past
from edgefl.wire import Bytes, Count, Flag, Moment, Rate, Seconds, Text, Version

log = logging.getLogger("edgefl.client")

HISTORY, UPDATES = "history.jsonl", "updates.json"
LIMIT_BYTES = 256 * 1024
MAX_UPDATES = 2000
"""Most moments that are kept; more than `WhenOptions.per_day` can be."""


def _moments(value: object, where: str) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) > MAX_UPDATES:
        raise refusal(where, value, f"a list of at most {MAX_UPDATES} moments")
    each = number(0.0, 1e12)
    return tuple(each(moment, f"{where}[{i}]") for i, moment in enumerate(value))


@dataclass(frozen=True)
class Entry(Message):
    """One line of a device's history.

    Attributes:
        at: seconds since the epoch.
        event: `round`, `evaluated`, `paused` or `resumed`.
        round: its number, 0 where the entry is about none.
        accepted: the server has the update, or what was found of a version.
        loss: mean training loss, or that of a version on the examples held out.
        bytes_up, bytes_down: bodies sent and received for the round.
        seconds: time training took.
        said: why it paused, why no update counts, or why nothing was found.
        version: what was measured.
        accuracy: of the version, None where there is no such notion.
        examples: that it was measured on.
    """

    at: Moment
    event: Annotated[str, text("round|evaluated|paused|resumed")]
    round: Count = 0
    accepted: Flag = False
    loss: Annotated[float | None, optional(number(-1e38, 1e38))] = None
    bytes_up: Bytes = 0
    bytes_down: Bytes = 0
    seconds: Seconds = 0.0
    said: Text = ""
    version: Version = 0
    accuracy: Rate = None
    examples: Count = 0


@dataclass(frozen=True)
class _Updates(Message):
    moments: Annotated[tuple[float, ...], Rule("a list of moments", _moments)] = ()
    examples: Count = 0


class Diary:
    """The history of one device. A disk that is full or read-only costs entries, never training."""

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        """Touches nothing before something is written."""
        self._history, self._updates, self._limit = folder / HISTORY, folder / UPDATES, limit_bytes

    def write(self, entry: Entry) -> None:
        """Add a line. Where the file is full, its older half goes."""
        line = entry.to_bytes() + b"\n"
        try:
            old = _bytes(self._history)
            if len(old) + len(line) > self._limit:
                old = old[-(self._limit // 2) :].partition(b"\n")[2]
                write_atomically(self._history, old + line)
                return
            # A line that a crash cut short must not take this one with it.
            torn = b"\n" if old and not old.endswith(b"\n") else b""
            with open(self._history, "ab") as file:
                file.write(torn + line)
        except OSError as exc:
            log.warning("nothing is added to %s: %s", self._history, exc)

    def entries(self) -> Iterator[Entry]:
        """All there are, oldest first; lines that are none are passed over."""
        for line in _bytes(self._history).splitlines():
            with contextlib.suppress(ProtocolError):
                yield Entry.from_bytes(line)

    def count_update(self, now: float, examples: int) -> None:
        """An update exists, made of so many examples; counted before it is sent, so that none escapes."""
        kept = [moment for moment in self.past().updates if now - DAY_S < moment <= now]
        message = _Updates((*kept, now)[-MAX_UPDATES:], examples)
        try:
            write_atomically(self._updates, message.to_bytes())
        except OSError as exc:
            log.warning("updates are not counted in %s: %s", self._updates, exc)

    def past(self) -> Past:
        """What counts against limits; nothing where the file cannot be read."""
        data = _bytes(self._updates)
        try:
            read = _Updates.from_bytes(data) if data else _Updates()
        except ProtocolError as exc:
            log.warning("%s cannot be read, so no update counts: %s", self._updates, exc)
            read = _Updates()
        return Past(read.moments, read.examples)


def _bytes(file: Path) -> bytes:
    with contextlib.suppress(OSError):
        return file.read_bytes()
    return b""
