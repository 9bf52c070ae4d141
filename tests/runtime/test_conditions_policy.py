# SPDX-License-Identifier: Apache-2.0
"""Whether a device may train: one decision about values."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

import pytest

from edgefl.errors import OptionError
from edgefl.options import WhenOptions
from edgefl.runtime.conditions import Past, Readings, eligible
from edgefl.runtime.conditions.policy import in_window
from edgefl.wire import Training

pytestmark = pytest.mark.device

NOW = 1_800_000_000.0
FINE = Readings(
    charging=True, battery=80.0, metered=False, power_save=False, busy=0.1, temperature=40.0, hot=False,
    free_storage=10**9, free_memory=10**9,
)  # fmt: skip

# Option, what it asks for, a reading that does, one that does not.
BY_READING: list[tuple[str, Any, Any, Any, str]] = [
    ("charging", True, True, False, "The device is not charging."),
    ("battery", 50, 50.0, 49.0, "The battery is at 49 %, needed are 50 %."),
    ("unmetered", True, False, True, "The network costs money by the byte."),
    ("full_power", True, False, True, "The device saves power."),
    ("busy", 0.25, 0.25, 0.5, "Other work takes 50 % of the processors, allowed are 25 %."),
    ("temperature", 60.0, 60.0, 71.5, "The device is at 72 °C, allowed are 60 °C."),
    ("cool", True, False, True, "The device slows itself down for heat."),
    ("free_storage", 10**8, 10**8, 10**6, "The disk has room for 1.0 MB, needed are 100.0 MB."),
    ("free_memory", 10**8, 10**8, 10**6, "1.0 MB of memory are free, needed are 100.0 MB."),
]
READING = {"unmetered": "metered", "full_power": "power_save", "cool": "hot"}


def test_nothing_asked_is_nothing_refused() -> None:
    assert eligible(WhenOptions(), Readings(), Past(), NOW) == ()


@pytest.mark.parametrize(("option", "asked", "good", "bad", "said"), BY_READING, ids=lambda v: str(v)[:12])
def test_each_reading_decides(option: str, asked: Any, good: Any, bad: Any, said: str) -> None:
    when, name = WhenOptions(**{option: asked}), READING.get(option, option)

    assert eligible(when, Readings(**{name: good}), Past(), NOW) == ()
    (reason,) = eligible(when, Readings(**{name: bad}), Past(), NOW)
    assert (reason.condition, str(reason)) == (option, said)


@pytest.mark.parametrize("option", [row[0] for row in BY_READING])
def test_what_cannot_be_read_is_a_reason(option: str) -> None:
    asked = {row[0]: row[1] for row in BY_READING}[option]

    (reason,) = eligible(WhenOptions(**{option: asked}), Readings(), Past(), NOW)

    assert reason.condition == option and reason.said.endswith("cannot be read here.")


def test_every_reason_is_given() -> None:
    when = WhenOptions(
        **{row[0]: row[1] for row in BY_READING}, new_examples=5, per_day=1, window="00:00-00:01"
    )
    bad = Readings(**{READING.get(row[0], row[0]): row[3] for row in BY_READING})
    noon = time.mktime((2027, 1, 15, 12, 0, 0, 0, 0, -1))

    found = eligible(when, bad, Past((noon - 60,), 10), noon, 12)

    assert {reason.condition for reason in found} == {f.name for f in fields(WhenOptions)}
    assert eligible(when, FINE, Past(), noon - 12 * 3600, 5) == ()


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        ("09:30-17:00", ["09:30", "16:59"], ["09:29", "17:00", "00:00"]),
        ("08:00-08:00", ["08:00", "07:59", "20:00"], []),
    ],
)
def test_hours_of_local_time(
    window: str, inside: list[str], outside: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    try:
        moment = {
            t: time.mktime((2027, 3, 1, int(t[:2]), int(t[3:]), 0, 0, 0, -1)) for t in (*inside, *outside)
        }
        found = {t: in_window(window, at) for t, at in moment.items()}
    finally:
        monkeypatch.undo()
        time.tzset()

    assert found == {**dict.fromkeys(inside, True), **dict.fromkeys(outside, False)}


def test_updates_of_the_last_day_count_and_those_to_come_do_not() -> None:
    when = WhenOptions(per_day=2)

    assert eligible(when, FINE, Past((NOW - 86_401, NOW - 86_400, NOW - 10)), NOW) == ()
    (reason,) = eligible(when, FINE, Past((NOW - 86_399, NOW - 10)), NOW)
    assert reason.said == "2 updates were sent in the last 24 hours, allowed are 2."
    # Stamped by a clock that ran ahead.
    assert eligible(when, FINE, Past((NOW + 1e8, NOW + 1e8)), NOW) == ()


@pytest.mark.parametrize(("has", "reasons"), [(None, 0), (14, 1), (15, 0), (3, 1)])
def test_new_examples(has: int | None, reasons: int) -> None:
    found = eligible(WhenOptions(new_examples=5), FINE, Past((), 10), NOW, has)

    assert len(found) == reasons


@pytest.mark.parametrize(
    ("field", "value"),
    [("battery", 101), ("battery", -1), ("busy", 1.5), ("temperature", 200), ("window", "22-06"),
     ("window", "24:00-06:00"), ("window", "22:00-06:00\n"), ("per_day", 1001), ("new_examples", -1),
     ("charging", 1)],
)  # fmt: skip
def test_impossible_conditions_are_refused(field: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"{field}="):
        WhenOptions(**{field: value})


def test_conditions_travel_with_a_task() -> None:
    when = WhenOptions(charging=True, battery=40, window="22:00-06:00", busy=0.5)
    training = Training(when=when)

    assert Training.from_bytes(training.in_round(3).to_bytes()).when == when
    assert Training.from_bytes(b"{}").when == WhenOptions()  # from an older server
