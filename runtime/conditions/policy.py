# SPDX-License-Identifier: Apache-2.0
"""Whether a device may train now: a decision about values, with no clock and no system in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgefl.options import WhenOptions
from edgefl.plain import size
from edgefl.runtime.conditions.readings import Readings

DAY_S = 86_400.0


@dataclass(frozen=True)
class Reason:
    """Why a device does not train.

    Attributes:
        condition: the option that is not met, a field of `WhenOptions`.
        said: the same in one plain sentence.
    """

    condition: str
    said: str

    def __str__(self) -> str:
        return self.said


@dataclass(frozen=True)
class Past:
    """What a device has given so far.

    Attributes:
        updates: when, in seconds since the epoch; at least those of the last 24 hours.
        examples: how many it had at the last one, 0 before the first.
    """

    updates: tuple[float, ...] = ()
    examples: int = 0


def eligible(
    when: WhenOptions, readings: Readings, past: Past, now: float, examples: int | None = None
) -> tuple[Reason, ...]:
    """Every reason not to train; none where the device may.

    What is asked for and cannot be read is a reason too.

    Args:
        now: seconds since the epoch.
        examples: how many the device has now; None where it does not know yet, which is no reason.
    """
    read = (_judged(demand) for demand in _demands(when, readings) if demand.made)
    return (*(reason for reason in read if reason), *_by_time(when, past, now, examples))


def in_window(window: str, now: float) -> bool:
    """Whether a moment, seconds since the epoch, is in hours of local time such as 22:00-06:00.

    The first minute belongs to them, the last does not; hours that end when they begin are the whole day.
    """
    begin, end = window.split("-")
    clock = time.strftime("%H:%M", time.localtime(now))
    return begin <= clock < end if begin < end else clock >= begin or clock < end


class _Demand(NamedTuple):
    """One condition: whether it is asked for, what was read, when that is enough, and what to say if not."""

    condition: str
    made: bool
    value: Any
    met: Callable[[Any], bool]
    what: str
    said: str


def _demands(when: WhenOptions, now: Readings) -> Iterator[_Demand]:
    busy, warmest = when.busy, when.temperature
    yield _Demand("charging", when.charging, now.charging, bool,
                  "whether the device charges", "The device is not charging.")  # fmt: skip
    yield _Demand("battery", when.battery > 0, now.battery, lambda has: has >= when.battery,
                  "how full the battery is",
                  f"The battery is at {now.battery or 0:.0f} %, needed are {when.battery} %.")  # fmt: skip
    yield _Demand("unmetered", when.unmetered, now.metered, lambda metered: not metered,
                  "whether the network costs money by the byte",
                  "The network costs money by the byte.")  # fmt: skip
    yield _Demand("full_power", when.full_power, now.power_save, lambda saving: not saving,
                  "whether the device saves power", "The device saves power.")  # fmt: skip
    yield _Demand("busy", busy is not None, now.busy, lambda part: part <= (busy or 0.0),
                  "how busy the device is",
                  f"Other work takes {100 * (now.busy or 0):.0f} % of the processors, "
                  f"allowed are {100 * (busy or 0):.0f} %.")  # fmt: skip
    yield _Demand("temperature", warmest is not None, now.temperature, lambda has: has <= (warmest or 0.0),
                  "how warm the device is",
                  f"The device is at {now.temperature or 0:.0f} °C, "
                  f"allowed are {warmest or 0:.0f} °C.")  # fmt: skip
    yield _Demand("cool", when.cool, now.hot, lambda hot: not hot,
                  "whether the device slows itself down for heat",
                  "The device slows itself down for heat.")  # fmt: skip
    yield _Demand("free_storage", when.free_storage > 0, now.free_storage,
                  lambda has: has >= when.free_storage, "how much room the disk has",
                  f"The disk has room for {size(now.free_storage or 0)}, "
                  f"needed are {size(when.free_storage)}.")  # fmt: skip
    yield _Demand("free_memory", when.free_memory > 0, now.free_memory,
                  lambda has: has >= when.free_memory, "how much memory is free",
                  f"{size(now.free_memory or 0)} of memory are free, "
                  f"needed are {size(when.free_memory)}.")  # fmt: skip


def _judged(demand: _Demand) -> Reason | None:
    if demand.value is None:
        return Reason(demand.condition, f"It is asked {demand.what}, which cannot be read here.")
    return None if demand.met(demand.value) else Reason(demand.condition, demand.said)


def _by_time(when: WhenOptions, past: Past, now: float, examples: int | None) -> Iterator[Reason]:
    if when.window is not None and not in_window(when.window, now):
        yield Reason("window", f"Training is for the hours {when.window} only.")
    if examples is not None and (fresh := examples - past.examples) < when.new_examples:
        yield Reason(
            "new_examples",
            f"{max(0, fresh)} examples have come since the last update, needed are {when.new_examples}.",
        )
    # A moment to come is of a clock that was wrong; it must not count for years.
    given = sum(now - DAY_S < moment <= now for moment in past.updates)
    if when.per_day and given >= when.per_day:
        yield Reason(
            "per_day", f"{given} updates were sent in the last 24 hours, allowed are {when.per_day}."
        )
