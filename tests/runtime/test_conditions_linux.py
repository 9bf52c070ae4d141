# SPDX-License-Identifier: Apache-2.0
"""A Linux system's files, as kernels write them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from edgefl.runtime.conditions import conditions_here
from edgefl.runtime.conditions.linux import LinuxConditions

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(sys.platform == "win32", reason="files named as no Windows has them"),
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty system without programs."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "sys/class/power_supply").mkdir(parents=True)
    return tmp_path


def put(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(f"{text}\n")


def supply(root: Path, name: str, **files: object) -> None:
    put(root / "sys/class/power_supply" / name, **files)


def program(root: Path, name: str, body: str) -> None:
    file = root / "bin" / name
    file.write_text(f"#!/bin/sh\necho x >> {root}/asked\n{body}\n")
    file.chmod(0o755)


def read(root: Path):
    return LinuxConditions(root, root).read()


def test_a_machine_without_a_battery_is_always_charging(root: Path) -> None:
    supply(root, "usb", type="USB", online=0)

    assert (read(root).charging, read(root).battery) == (True, 100.0)


@pytest.mark.parametrize(
    ("status", "online", "charging"),
    [("Discharging", 0, False), ("Not charging", 1, True), ("Charging", 0, True), ("Full", 0, True),
     ("Unknown", 0, False)],
)  # fmt: skip
def test_a_laptop_or_phone(root: Path, status: str, online: int, charging: bool) -> None:
    supply(root, "AC", type="Mains", online=online)
    supply(root, "BAT0", type="Battery", status=status, capacity=40)
    supply(root, "BAT1", type="Battery", status="Unknown", capacity=60)
    supply(root, "hid-mouse", type="Battery", scope="Device", status="Full", capacity=3)

    assert (read(root).charging, read(root).battery) == (charging, 50.0)


def test_the_hottest_zone_and_its_trips(root: Path) -> None:
    zones = root / "sys/class/thermal"
    put(zones / "thermal_zone0", temp=45_000, trip_point_0_type="passive", trip_point_0_temp=80_000)
    put(zones / "thermal_zone1", temp=79_500, trip_point_0_type="active", trip_point_0_temp=50_000)
    put(zones / "thermal_zone2", temp=-274_000)
    put(zones / "thermal_zone3", temp="")

    assert (read(root).temperature, read(root).hot) == (79.5, False)
    put(zones / "thermal_zone0", temp=80_000)
    assert (read(root).temperature, read(root).hot) == (80.0, True)


def test_other_work_is_what_this_process_did_not_do(root: Path) -> None:
    now, tick = [0.0], os.sysconf("SC_CLK_TCK")
    put(root / "proc", loadavg="0.00 0.50 0.50 1/100 99", stat="cpu 0 0 0 0 0 0 0 0 0 0")
    conditions = LinuxConditions(root, root, clock=lambda: now[0])

    first = conditions.read().busy
    # In 100 s of one processor 60 s of work, nearly none of it by this process; waiting for disks is no work.
    put(root / "proc", stat=f"cpu {50 * tick} {5 * tick} {5 * tick} {20 * tick} {20 * tick} 0 0 0 7 7")
    too_soon = conditions.read().busy
    now[0] = 100.0
    later = conditions.read().busy

    assert first == too_soon == 0.0
    own = sum(os.times()[:4])
    assert later is not None and 0.6 - own / 100 <= later <= 0.6


def test_room_on_the_disk_and_in_memory(root: Path) -> None:
    put(root / "proc", meminfo="MemTotal:  2048 kB\nMemFree:  10 kB\nMemAvailable:     512 kB")

    found = read(root)

    assert found.free_memory == 512 * 1024
    assert found.free_storage is not None and found.free_storage > 0


def test_a_system_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    found = LinuxConditions(tmp_path / "none", tmp_path).read()

    assert set(vars(found).values()) == {None}


@pytest.mark.parametrize(
    ("answer", "metered"),
    [("u 1", True), ("u 2", False), ("u 3", True), ("u 4", False), ("u 0", None), ("junk", None)],
)
def test_network_manager_over_the_bus(root: Path, answer: str, metered: bool | None) -> None:
    program(root, "busctl", f'test "$2" = --timeout=2 && echo "{answer}"')

    assert read(root).metered is metered


@pytest.mark.parametrize(
    ("blocks", "metered"),
    [
        ([("100 (connected)", "no (guessed)")], False),
        ([("30 (disconnected)", "yes"), ("100 (connected)", "no")], False),
        ([("100 (connected)", "no"), ("100 (connected)", "yes (guessed)")], True),
        ([("100 (connected)", "unknown")], None),
    ],
)
def test_network_manager_s_own_program(
    root: Path, blocks: list[tuple[str, str]], metered: bool | None
) -> None:
    text = r"\n".join(rf"GENERAL.STATE:{s}\nGENERAL.METERED:{m}\n" for s, m in blocks)
    program(root, "nmcli", f"printf '{text}'")

    assert read(root).metered is metered


def test_asking_about_the_network_starts_a_process_now_and_then_only(root: Path) -> None:
    now = [0.0]
    program(root, "busctl", 'echo "u 2"')
    conditions = LinuxConditions(root, root, clock=lambda: now[0])

    for now[0] in (0.0, 1.0, 29.0, 31.0):
        conditions.read()

    assert len((root / "asked").read_text().split()) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="this system's files are no Linux's")
def test_this_machine_can_be_read(tmp_path: Path) -> None:
    found = conditions_here(tmp_path).read()

    assert found.free_memory and found.free_storage and found.busy is not None
