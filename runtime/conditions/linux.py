# SPDX-License-Identifier: Apache-2.0
"""Readings of a Linux system: files of sysfs and procfs, and NetworkManager over D-Bus where it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgefl.runtime.conditions.readings import Readings

_NETWORK_S = 30.0
"""How long an answer about the network is kept: asking starts a process."""
_BUSY_S = 1.0
"""Least time over which the processors' work is counted."""
_METERED = {"yes": True, "guess-yes": True, "no": False, "guess-no": False}
_BUSCTL = ("busctl", "--system", "--timeout=2", "get-property", "org.freedesktop.NetworkManager",
           "/org/freedesktop/NetworkManager", "org.freedesktop.NetworkManager", "Metered")  # fmt: skip
_NAMES = {"u 1": "yes", "u 2": "no", "u 3": "guess-yes", "u 4": "guess-no"}
_NMCLI = ("nmcli", "--terse", "--fields", "GENERAL.STATE,GENERAL.METERED", "device", "show")


class LinuxConditions:
    """What the kernel says. Nothing is written, no right beyond a plain user's is needed."""

    def __init__(
        self, folder: Path, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            folder: whose disk has to have room.
            root: where `sys` and `proc` are found.
            clock: seconds, monotonic.
        """
        self._folder, self._root, self._clock = folder, root, clock
        self._network: tuple[float, bool | None] | None = None
        self._work: tuple[float, float, float, float] | None = None
        self._busy: float | None = None

    def read(self) -> Readings:
        charging, battery = self._power()
        temperature, hot = self._heat()
        return Readings(
            charging=charging,
            battery=battery,
            metered=self._metered(),
            busy=self._others(),
            temperature=temperature,
            hot=hot,
            free_storage=self._storage(),
            free_memory=self._memory(),
        )

    # -- power

    def _power(self) -> tuple[bool | None, float | None]:
        """Charging, and percent. Batteries of mice and headsets are not the device's."""
        supplies = self._root / "sys/class/power_supply"
        if not supplies.is_dir():
            return None, None
        found = [s for s in sorted(supplies.iterdir()) if _text(s / "scope") != "Device"]
        batteries = [s for s in found if _text(s / "type") == "Battery"]
        if not batteries:
            return True, 100.0
        lines = [s for s in found if s not in batteries]
        charging = any(_text(s / "online") == "1" for s in lines) or any(
            _text(s / "status") in ("Charging", "Full") for s in batteries
        )
        levels = [level for s in batteries if (level := _number(s / "capacity")) is not None]
        return charging, sum(levels) / len(levels) if levels else None

    # -- heat

    def _heat(self) -> tuple[float | None, bool | None]:
        """Degrees of the hottest zone, and whether any has reached where the kernel begins to slow down."""
        zones = [(z, t) for z in self._zones() if (t := _number(z / "temp")) is not None]
        sane = [(zone, celsius / 1000) for zone, celsius in zones if -40_000 < celsius < 150_000]
        if not sane:
            return None, None
        hot = any(celsius >= limit for zone, celsius in sane for limit in _trips(zone))
        return max(celsius for _, celsius in sane), hot

    def _zones(self) -> list[Path]:
        return sorted(self._root.glob("sys/class/thermal/thermal_zone*"))

    # -- processors

    def _others(self) -> float | None:
        """Part of the processors' time that others took since the last reading, at least a second ago.

        The first reading is the load average, for there is nothing to count from yet.
        """
        work = _processors(self._root / "proc/stat")
        if work is None:
            return None
        at, (busy, whole), own = self._clock(), work, sum(os.times()[:4])
        if self._work is None:
            load = _text(self._root / "proc/loadavg").split()
            self._busy = min(1.0, float(load[0]) / (os.cpu_count() or 1)) if load else None
            self._work = at, busy, whole, own
        elif at - self._work[0] >= _BUSY_S and whole > self._work[2]:
            _, busy_then, whole_then, own_then = self._work
            others = (busy - busy_then) - (own - own_then)
            self._busy = min(1.0, max(0.0, others / (whole - whole_then)))
            self._work = at, busy, whole, own
        return self._busy

    # -- network

    def _metered(self) -> bool | None:
        at = self._clock()
        if self._network is None or at - self._network[0] >= _NETWORK_S:
            self._network = at, _network_manager()
        return self._network[1]

    # -- room

    def _storage(self) -> int | None:
        try:
            return shutil.disk_usage(self._folder).free
        except OSError:
            return None

    def _memory(self) -> int | None:
        for line in _text(self._root / "proc/meminfo").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
        return None


def _network_manager() -> bool | None:
    """Whether NetworkManager takes the connection for metered; None where it does not run or know."""
    answer = _output(_BUSCTL)
    if answer is not None:
        return _METERED.get(_NAMES.get(answer.strip(), ""))
    said = _output(_NMCLI) or ""
    # One block per device, empty lines between: those that are connected decide.
    blocks = [dict(line.partition(":")[::2] for line in b.splitlines()) for b in said.split("\n\n")]
    flags = [
        _METERED.get(b.get("GENERAL.METERED", "").replace(" (guessed)", ""))
        for b in blocks
        if b.get("GENERAL.STATE", "").startswith("100")
    ]
    known = [flag for flag in flags if flag is not None]
    return any(known) if known else None


def _output(command: tuple[str, ...]) -> str | None:
    """What a program prints; None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _trips(zone: Path) -> Iterator[float]:
    """Degrees from which a zone makes the kernel slow down or stop the machine."""
    for kind in zone.glob("trip_point_*_type"):
        if _text(kind) in ("passive", "hot", "critical"):
            limit = _number(kind.with_name(kind.name.replace("_type", "_temp")))
            if limit is not None and limit > 0:  # a trip that is switched off says 0 or less
                yield limit / 1000


def _processors(file: Path) -> tuple[float, float] | None:
    """Seconds that all processors worked, and seconds in all, since the machine started."""
    words = _text(file).split("\n", 1)[0].split()
    if words[:1] != ["cpu"] or len(words) < 6:
        return None
    # user nice system idle iowait irq softirq steal; guests are part of user and nice.
    ticks = [int(word) for word in words[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / tick, sum(ticks) / tick


def _text(file: Path) -> str:
    """A small file's text without space around it; "" where it cannot be read."""
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _number(file: Path) -> float | None:
    try:
        return float(_text(file))
    except ValueError:
        return None
