# SPDX-License-Identifier: Apache-2.0
"""What a page says: a snapshot in the words, rows and charts that its template puts in place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgefl.lineage import VersionInfo
from edgefl.plain import size
from edgefl.server_stub.pages import charts
from edgefl.server_stub.pages.charts import Axis, Series
from edgefl.server_stub.pages.figures import Snapshot
from edgefl.wire import Participant, RoundInfo

ROWS = 20
"""Rounds a table shows."""
PEOPLE = 200
"""Devices a table shows."""
SOME, FEW = 12, 25
"""Versions, and updates that did not count as they were, of which the newest are shown."""
_LATE = "round-closed"

Numbered = tuple[int, tuple[Participant, ...]]


@dataclass(frozen=True)
class Tile:
    """One figure in large print."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A picture with its title, and the names of its series where it has several."""

    title: str
    picture: Markup
    legend: tuple[str, ...] = ()
    kind: str = "lines"


def overview(now: Snapshot, recent: Sequence[Numbered]) -> dict[str, Any]:
    """What the first page shows.

    Args:
        recent: the devices of the last rounds, oldest round first.
    """
    current = now.current
    devices = next((p for n, p in recent if current is not None and n == current.round), ())
    return {
        **_common(now),
        "tiles": _tiles(now),
        "charts": _charts(now),
        "current": None if current is None else _current(now, current, devices),
        "rounds": [row(info, now) for info in reversed(now.rounds[-ROWS:])],
        "hidden": max(0, len(now.rounds) - ROWS),
        "held": now.status.held,
        "versions": [_version(each) for each in reversed(now.versions[-SOME:])],
        "versions_hidden": max(0, len(now.versions) - SOME),
        "refusals": now.refusals().most_common(),
        "aside": _aside(recent),
        "attendance": _attendance(recent),
        "looked_at": len(recent),
    }


def one_round(now: Snapshot, info: RoundInfo, devices: Sequence[Participant]) -> dict[str, Any]:
    """What the page of a round shows."""
    return {
        **_common(now),
        "info": row(info, now),
        "devices": [_person(each) for each in devices[:PEOPLE]],
        "more": max(0, len(devices) - PEOPLE),
        "last": max((each.round for each in now.rounds), default=0),
    }


def _common(now: Snapshot) -> dict[str, Any]:
    status = now.status
    state = "finished" if status.finished else f"round {now.rounds[-1].round} of {status.rounds_total}"
    return {"model": status.model, "state": state, "federation": status.federation, "at": _clock(now.at)}


def _tiles(now: Snapshot) -> list[Tile]:
    status, closed = now.status, now.closed
    told = [info.loss for info in closed if info.loss is not None]
    updates = sum(info.updates for info in now.rounds)
    up, down = (sum(getattr(info, name) for info in now.rounds) for name in ("bytes_up", "bytes_down"))
    tiles = [
        Tile("version", f"{status.version:,}", f"{status.rounds_done:,} of {status.rounds_total:,} rounds"),
        Tile("devices", f"{status.devices:,}", f"{now.waiting:,} waiting for work"),
        Tile("updates", f"{updates:,}", f"{sum(now.refusals().values()):,} refused"),
        Tile("training loss", _loss(told[-1]) if told else "-", f"{_loss(told[0])} at first" if told else ""),
    ]
    if now.measured:
        last = now.measured[-1]
        value = _loss(last.loss) if last.accuracy is None else f"{100 * last.accuracy:.1f} %"
        what = "held-out loss" if last.accuracy is None else "held-out accuracy"
        tiles.append(Tile(what, value, f"version {last.version}, on {last.examples:,} examples"))
    if status.epsilon is not None:
        tiles.append(Tile("privacy spent", f"epsilon {status.epsilon:.3g}", f"delta {status.delta:.0e}"))
    ratio = updates * now.dense_bytes / up if up and updates else None
    return [
        *tiles,
        Tile("received", size(up), f"{ratio:,.0f} x less than dense" if ratio else ""),
        Tile("sent", size(down)),
    ]


def _charts(now: Snapshot) -> list[Chart]:
    closed = now.closed
    axis = Axis([info.round for info in closed], "round")
    loss = (Series("loss", [info.loss for info in closed]),)
    sizes = (
        Series("one update, HTTP included", [info.bytes_up / max(1, info.updates) for info in closed]),
        Series("dense float32", [float(now.dense_bytes)] * len(closed)),
    )
    fates = (
        Series("counted", [float(info.updates - info.bounded) for info in closed]),
        Series("gave the place back", [float(info.declined) for info in closed]),
        Series("did not answer in time", [float(_absent(info)) for info in closed]),
        Series("shortened or set aside", [float(info.bounded) for info in closed]),
    )
    took = (Series("seconds", [(info.closed_at or info.opened_at) - info.opened_at for info in closed]),)
    return [
        Chart("Training loss, as devices tell it", charts.lines(axis, loss, _short)),
        *_measured(now),
        Chart("Bytes by update", charts.lines(axis, sizes, size, logarithmic=True), _names(sizes)),
        Chart("Places by round", charts.bars(axis, fates, _short), _names(fates), "bars"),
        Chart("Seconds by round", charts.bars(axis, took, _short), kind="bars"),
    ]


def _measured(now: Snapshot) -> list[Chart]:
    """How good versions were on examples that devices hold out, where they were measured."""
    if not now.measured:
        return []
    axis = Axis([each.version for each in now.measured], "version")
    loss = (Series("loss", [each.loss for each in now.measured]),)
    made = [Chart("Loss on held-out examples", charts.lines(axis, loss, _short))]
    if any(each.accuracy is not None for each in now.measured):
        rates = [None if each.accuracy is None else 100 * each.accuracy for each in now.measured]
        drawn = charts.lines(axis, (Series("accuracy", rates),), lambda value: f"{value:.3g} %")
        made.append(Chart("Accuracy on held-out examples", drawn))
    return made


def _current(now: Snapshot, info: RoundInfo, devices: Sequence[Participant]) -> dict[str, Any]:
    working = max(0, info.assigned - info.updates - info.declined)
    return {
        "number": info.round,
        "state": info.state,
        "picture": charts.progress(info.updates, info.goal, working),
        "facts": [
            ("updates", f"{info.updates} of {info.goal}"),
            ("at work", f"{working:,}"),
            ("places given", f"{info.assigned:,}"),
            ("given back", f"{info.declined:,}"),
            ("at least", f"{info.minimum} at the deadline"),
            ("deadline", f"in {_span(info.deadline - now.at)}"),
            ("put off", f"{info.extensions} times"),
            ("open for", _span(now.at - info.opened_at)),
        ],
        "devices": [_person(each) for each in devices[:PEOPLE]],
        "more": max(0, len(devices) - PEOPLE),
    }


def row(info: RoundInfo, now: Snapshot) -> dict[str, Any]:
    """A round as tables have it."""
    until = now.at if info.closed_at is None else info.closed_at
    dense = info.updates * now.dense_bytes
    return {
        "number": info.round,
        "state": info.state,
        "version": "-" if info.version is None else info.version,
        "updates": f"{info.updates} of {info.goal}",
        "loss": _loss(info.loss),
        "late": _absent(info),
        "declined": info.declined,
        "bounded": info.bounded,
        "refused": ", ".join(f"{each.count} {each.reason}" for each in info.refused) or "-",
        "put_off": info.extensions,
        "up": size(info.bytes_up),
        "down": size(info.bytes_down),
        "ratio": f"{dense / info.bytes_up:,.0f} x" if dense and info.bytes_up else "-",
        "took": _span(until - info.opened_at),
        "closed": "-" if info.closed_at is None else _clock(info.closed_at),
        "closed_short": "-" if info.closed_at is None else _clock(info.closed_at)[5:16],
    }


def _version(info: VersionInfo) -> dict[str, Any]:
    found = info.evaluation
    accuracy = None if found is None else found.accuracy
    marks = {
        "pulled by default": info.promoted,
        "pinned": info.pinned,
        f"version {info.restores} again": info.restores is not None,
        "no longer kept": not info.kept,
    }
    return {
        "number": info.version,
        "round": info.round,
        "updates": info.updates,
        "loss": _loss(info.loss),
        "held_out": _loss(None if found is None else found.loss),
        "accuracy": "-" if accuracy is None else f"{100 * accuracy:.1f} %",
        "made": _clock(info.made_at),
        "marks": ", ".join(name for name, so in marks.items() if so),
        "kept": info.kept,
        "promoted": info.promoted,
    }


def _person(one: Participant) -> dict[str, Any]:
    tones = {"accepted": "good", "refused": "bad", "absent": "warn", "declined": "warn"}
    aside = one.state == "accepted" and one.counted < 1
    return {
        "device": one.device,
        "engine": one.engine,
        "examples": f"{one.examples:,}",
        "state": _fate(one),
        "tone": "bad" if aside else "warn" if _late(one) else tones.get(one.state, ""),
        "bytes": size(one.bytes) if one.bytes else "-",
        "loss": _loss(one.loss),
        "reason": one.reason,
    }


def _fate(one: Participant) -> str:
    if _late(one):
        return "late" if one.reason else "absent"
    if one.state == "accepted" and one.counted < 1:
        return "set aside" if one.counted == 0 else f"counted {100 * one.counted:.0f} %"
    return one.state


def _aside(recent: Sequence[Numbered]) -> list[dict[str, Any]]:
    """Updates that did not count as they were, or not at all, newest first."""
    found = [
        {"round": number, **_person(each)}
        for number, devices in reversed(recent)
        for each in devices
        if each.reason and not _late(each) and (each.state in ("refused", "declined") or each.counted < 1)
    ]
    return found[:FEW]


def _attendance(recent: Sequence[Numbered]) -> list[dict[str, Any]]:
    """What each device did in the last rounds; those with the most places first."""
    mine: dict[str, list[Participant]] = {}
    for _, devices in recent:
        for each in devices:
            mine.setdefault(each.device, []).append(each)
    ordered = sorted(mine.items(), key=lambda item: (-len(item[1]), item[0]))[:PEOPLE]
    return [
        {
            "device": device,
            "engine": each[-1].engine,
            "places": len(each),
            "accepted": sum(one.state == "accepted" for one in each),
            "absent": sum(_late(one) for one in each),
            "aside": sum(one.counted < 1 for one in each),
            "bytes": size(sum(one.bytes for one in each)),
            "loss": _loss(next((one.loss for one in reversed(each) if one.loss is not None), None)),
        }
        for device, each in ordered
    ]


def _late(one: Participant) -> bool:
    """Whether nothing came of a place in time."""
    return one.state == "absent" or (one.state == "refused" and one.reason == _LATE)


def _absent(info: RoundInfo) -> int:
    """Places of a round that is over that nothing came from; with `staleness` some of it comes later."""
    over = info.closed_at is not None
    return max(0, info.assigned - info.updates - info.declined) if over else 0


def _names(series: Sequence[Series]) -> tuple[str, ...]:
    return tuple(each.name for each in series)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3g}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _span(seconds: float) -> str:
    """A length of time, as people say it."""
    left = max(0.0, seconds)
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if left >= 2 * unit:
            return f"{left / unit:.0f} {name}"
    return f"{left:.1f} s" if left < 10 else f"{left:.0f} s"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
