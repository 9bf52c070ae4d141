# SPDX-License-Identifier: Apache-2.0
"""What a device does and did, for its owner: read from its folder, which nothing here writes to."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgefl.errors import OptionError
from edgefl.plain import moment, print_json, print_line, size
from edgefl.runtime.conditions import Conditions
from edgefl.runtime.conditions.diary import Diary, Entry
from edgefl.runtime.conditions.guard import judged, read_state
from edgefl.runtime.conditions.policy import DAY_S
from edgefl.runtime.lock import owner


def status_of(folder: Path, conditions: Conditions) -> dict[str, Any]:
    """Whether a client runs in the folder, what it does, and every reason not to train now, as JSON has it.

    Raises:
        OptionError: no client has ever run there.
    """
    state = read_state(folder)
    if state is None:
        raise OptionError(f"no device has run in {folder}; --workdir names its folder")
    now, process, diary = time.time(), owner(folder), Diary(folder)
    readings, past = conditions.read(), diary.past()
    reasons = judged(state, readings, past, now)
    rounds = [entry for entry in diary.entries() if entry.event == "round"]
    return {
        "running": process is not None,
        "process": process,
        "doing": state.doing,
        "since": state.since,
        "eligible": not reasons,
        "reasons": [vars(reason) for reason in reasons],
        "readings": vars(readings),
        "when": state.when.to_json(),
        "server_when": state.theirs.to_json(),
        "rounds": len(rounds),
        "accepted": sum(entry.accepted for entry in rounds),
        "updates_today": sum(now - DAY_S < moment <= now for moment in past.updates),
        "last_round": rounds[-1].to_json() if rounds else None,
    }


def show_status(folder: Path, conditions: Conditions, as_json: bool) -> None:
    """Print `status_of`."""
    found = status_of(folder, conditions)
    if as_json:
        print_json(found)
        return
    process = found["process"]
    who = f"process {process}" if process else "no process runs, the last one"
    print_line(f"{folder}: {who} {found['doing']}, since {moment(found['since'])}")
    for reason in found["reasons"]:
        print_line(f"not training: {reason['said']}")
    if found["eligible"]:
        print_line("it may train now")
    print_line(
        f"{found['rounds']} rounds in its history, {found['accepted']} accepted; "
        f"{found['updates_today']} updates in 24 hours"
    )
    if found["last_round"]:
        print_line(_line(Entry.from_json(found["last_round"])))


def show_history(folder: Path, as_json: bool) -> None:
    """Every entry there is, oldest first."""
    entries = list(Diary(folder).entries())
    if as_json:
        print_json({"entries": [entry.to_json() for entry in entries]})
        return
    for line in map(_line, entries) if entries else _none(folder):
        print_line(line)


def _none(folder: Path) -> Iterator[str]:
    yield f"{folder}: there is no history yet"


def _line(entry: Entry) -> str:
    if entry.event == "evaluated":
        return f"{moment(entry.at)}  {_measured(entry)}"
    if entry.event != "round":
        return f"{moment(entry.at)}  {entry.event}  {entry.said}".rstrip()
    loss = "-" if entry.loss is None else f"{entry.loss:.4f}"
    return (
        f"{moment(entry.at)}  round {entry.round:<4} loss {loss:<8} sent {size(entry.bytes_up):<9} "
        f"received {size(entry.bytes_down):<9} {entry.seconds:6.2f} s  "
        f"{'accepted' if entry.accepted else f'not accepted: {entry.said}'}"
    )


def _measured(entry: Entry) -> str:
    if entry.loss is None:
        return f"version {entry.version:<4} not measured: {entry.said}"
    accuracy = "" if entry.accuracy is None else f"accuracy {entry.accuracy:.1%}  "
    outcome = "" if entry.accepted else f", not accepted: {entry.said}"
    return (
        f"version {entry.version:<4} loss {entry.loss:<8.4f} {accuracy}"
        f"on {entry.examples} examples held out{outcome}"
    )
