# SPDX-License-Identifier: Apache-2.0
"""What stands between a client and its device: asks the conditions, waits for them, writes the diary."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from edgefl.errors import DiskFull, ProtocolError
from edgefl.files import write_atomically, write_where_it_lies
from edgefl.message import Message, nested
from edgefl.options import WhenOptions
from edgefl.runtime.conditions.diary import Diary, Entry
from edgefl.runtime.conditions.policy import Past, Reason, eligible
from edgefl.runtime.conditions.readings import Conditions, Readings, Scripted
from edgefl.runtime.pause import Pause
from edgefl.wire import MAX_TEXT, Count, Evaluated, Moment, Text

log = logging.getLogger("edgefl.client")

STATE = "state.json"
FULL = "waits for room on the disk"
LOOK_AGAIN_S = 60.0
"""About how long a device that may not train waits before it looks at its conditions again."""

_NOTHING = WhenOptions()


@dataclass(frozen=True)
class State(Message):
    """What a client was doing when it last said so.

    Attributes:
        since: seconds since the epoch.
        doing: in words, such as `waits for the server`.
        when: the conditions its owner set.
        theirs: those of the server's last task.
        examples: how many it has; 0 where it does not know yet.
    """

    since: Moment
    doing: Text
    when: Annotated[WhenOptions, nested(WhenOptions)] = field(default_factory=WhenOptions)
    theirs: Annotated[WhenOptions, nested(WhenOptions)] = field(default_factory=WhenOptions)
    examples: Count = 0


def read_state(folder: Path) -> State | None:
    """What the folder's last client was doing; None where there was none, or nothing readable."""
    with contextlib.suppress(OSError, ProtocolError):
        return State.from_bytes((folder / STATE).read_bytes())
    return None


def judged(state: State, readings: Readings, past: Past, now: float) -> tuple[Reason, ...]:
    """Every reason not to train, of the owner's conditions and of the server's, each said once."""
    examples = state.examples or None
    both = (eligible(when, readings, past, now, examples) for when in (state.when, state.theirs))
    return tuple(dict.fromkeys(reason for reasons in both for reason in reasons))


class Guard:
    """The manners of one client. Made without touching the folder; used only while its lock is held."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        when: WhenOptions | None = None,
        conditions: Conditions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        every_s: float = 1.0,
    ) -> None:
        """
        Args:
            folder: the client's.
            when: the conditions the device's owner sets; none by default.
            conditions: what reads the device's state; by default nothing can be read.
            clock: seconds since the epoch.
            every_s: least time between two readings while training.
        """
        self._folder, self._conditions = Path(folder), conditions or Scripted()
        self.diary = Diary(self._folder)
        self._clock, self._every_s = clock, every_s
        self._state = State(0.0, "starts", when or WhenOptions())
        self._said: set[str] = set()
        self._before = self._state.doing
        self._has_room, self._before_full = True, self._state.doing
        self._asked: tuple[float, tuple[Reason, ...]] | None = None

    def begin(self) -> None:
        """Take up what an earlier client of the folder had learned about the server's conditions."""
        found = read_state(self._folder)
        self._tell(replace(self._state, theirs=found.theirs if found else WhenOptions()), "starts")

    # -- asking

    def has(self, examples: int) -> None:
        """How many examples the device has now."""
        self._state = replace(self._state, examples=examples)

    def demanded(self, theirs: WhenOptions) -> None:
        """Keep the server's conditions, which came with a task."""
        if theirs != self._state.theirs:
            self._tell(replace(self._state, theirs=theirs), self._state.doing)
            self._asked = None

    def pause(self, sending: bool = False) -> Pause | None:
        """What keeps the device from going on, asked before every request and every step.

        Args:
            sending: an update exists already, so that only its bytes can be a reason to wait.
        """
        reasons = self._reasons()
        if sending:
            reasons = tuple(reason for reason in reasons if reason.condition == "unmetered")
        self._note(reasons)
        return Pause(" ".join(map(str, reasons)), LOOK_AGAIN_S) if reasons else None

    def _reasons(self) -> tuple[Reason, ...]:
        """Every reason not to train, as it was less than `every_s` ago."""
        if self._state.when == self._state.theirs == _NOTHING:
            return ()
        at = time.monotonic()
        if self._asked is None or not 0 <= at - self._asked[0] < self._every_s:
            now = judged(self._state, self._conditions.read(), self.diary.past(), self._clock())
            self._asked = at, now
        return self._asked[1]

    # -- telling

    def doing(self, what: str) -> None:
        """Keep what the client does for whoever asks."""
        if what != self._state.doing:
            self._tell(self._state, what)

    def found_room(self, found: bool) -> None:
        """Whether what was last written had room on the disk; without, the client waits for some."""
        if found == self._has_room:
            return
        self._has_room = found
        if found:
            self.diary.write(Entry(self._clock(), "resumed"))
            self.doing(self._before_full)
        else:
            self._before_full = self._state.doing
            self.diary.write(Entry(self._clock(), "paused", said=FULL))
            self.doing(FULL)

    def _note(self, reasons: tuple[Reason, ...]) -> None:
        """Write down a change: why the device does not train, once for the same reasons, or that it may."""
        conditions = {reason.condition for reason in reasons}
        if conditions == self._said:
            return
        if not self._said:
            self._before = self._state.doing
        self._said = conditions
        if reasons:
            said = " ".join(map(str, reasons))[:MAX_TEXT]
            self.diary.write(Entry(self._clock(), "paused", said=said))
            self.doing("waits for its conditions")
        else:
            self.diary.write(Entry(self._clock(), "resumed"))
            self.doing(self._before)

    def count_update(self) -> None:
        """An update exists; it counts from now on, before it is sent."""
        self.diary.count_update(self._clock(), self._state.examples)
        self._asked = None

    def finished_round(
        self,
        number: int,
        *,
        accepted: bool,
        loss: float | None,
        bytes_up: int,
        bytes_down: int,
        seconds: float,
        error: str,
    ) -> None:
        """Write down what became of a round."""
        known = loss if loss is not None and abs(loss) <= 1e38 else None
        entry = Entry(self._clock(), "round", number, accepted, known, bytes_up, bytes_down, seconds,
                      error[:MAX_TEXT])  # fmt: skip
        self.diary.write(entry)

    def measured(self, version: int, found: Evaluated, *, accepted: bool, said: str) -> None:
        """Write down what the server was told about a version."""
        entry = Entry(
            self._clock(),
            "evaluated",
            accepted=accepted,
            loss=found.loss,
            said=said[:MAX_TEXT],
            version=version,
            accuracy=found.accuracy,
            examples=found.examples,
        )
        self.diary.write(entry)

    def _tell(self, state: State, doing: str) -> None:
        self._state = replace(state, doing=doing, since=self._clock())
        file, data = self._folder / STATE, self._state.to_bytes()
        try:
            try:
                write_atomically(file, data)
            except DiskFull:
                write_where_it_lies(file, data)
        except OSError as exc:
            log.warning("the state is not kept in %s: %s", self._folder, exc)
