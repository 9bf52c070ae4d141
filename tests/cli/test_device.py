# SPDX-License-Identifier: Apache-2.0
"""`edgefl device`: what its owner is told."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from edgefl.data import load_examples
from edgefl.options import WhenOptions
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.conditions import Guard, Readings, Scripted
from edgefl.runtime.lock import only_one
from edgefl.runtime.patience import Patience
from edgefl.runtime.transport import LoopbackTransport
from tests.cli.commands import Command
from tests.runtime.test_client import FakeServer

pytestmark = pytest.mark.device

# More than any machine has: the reason is the same wherever the test runs.
NEVER = WhenOptions(free_memory=2**50)


@pytest.fixture
def folder(tmp_path: Path, data: Path) -> Path:
    """Of a device that made two rounds and then may not go on."""
    folder = tmp_path / "watch"
    conditions = Scripted(Readings(free_memory=2**50))
    stop: list[float] = []
    client = DeviceClient(
        LoopbackTransport(FakeServer(rounds=9)), load_examples(data), folder, backend="numpy",
        patience=Patience(sleep=stop.append), guard=Guard(folder, NEVER, conditions, every_s=0.0),
    )  # fmt: skip
    for report in client.run(until=lambda: bool(stop)):
        if report.round == 2:
            conditions.set(Readings(free_memory=10**6))
    return folder


def test_status_says_why_it_does_not_train(call: Command, folder: Path) -> None:
    found = call("device", "--status", "--workdir", folder, "--json").json()

    assert (found["running"], found["process"], found["eligible"]) == (False, None, False)
    (reason,) = found["reasons"]
    assert reason["condition"] == "free_memory" and reason["said"].endswith("needed are 1125899.9 GB.")
    assert found["doing"] == "was stopped" and found["since"] <= time.time()
    assert (found["rounds"], found["accepted"], found["updates_today"]) == (2, 2, 2)
    assert found["last_round"]["round"] == 2 and found["when"]["free_memory"] == 2**50


def test_status_for_people(call: Command, folder: Path) -> None:
    with only_one(folder):
        running = call("device", "--status", "--workdir", folder)
    stopped = call("device", "--status", "--workdir", folder)

    assert re.match(r".*watch: process \d+ was stopped, since \d{4}-", running.out)
    assert ": no process runs, the last one was stopped, since " in stopped.out
    lines = stopped.out.splitlines()
    assert lines[1].startswith("not training: ") and lines[1].endswith(
        "of memory are free, needed are 1125899.9 GB."
    )
    assert lines[2] == "2 rounds in its history, 2 accepted; 2 updates in 24 hours"
    assert "round 2 " in lines[3] and lines[3].endswith("accepted")


def test_history(call: Command, folder: Path) -> None:
    entries = call("device", "--history", "--workdir", folder, "--json").json()["entries"]
    shown = call("device", "--history", "--workdir", folder).out.splitlines()

    assert [e["event"] for e in entries] == ["round", "round", "paused"]
    assert all(e["loss"] > 0 and e["bytes_up"] > 0 and e["seconds"] > 0 for e in entries[:2])
    assert len(shown) == 3 and "  paused  1.0 MB of memory are free, " in shown[2]


def test_looking_changes_nothing(call: Command, folder: Path) -> None:
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))}

    call("device", "--status", "--history", "--workdir", folder)

    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.rglob("*"))} == before


def test_a_folder_no_device_ran_in(call: Command, tmp_path: Path) -> None:
    refused = call("device", "--status", "--workdir", tmp_path / "none", "--json").refusal()
    empty = call("device", "--history", "--workdir", tmp_path / "none")

    assert refused["error"] == "OptionError" and "no device has run in" in refused["message"]
    assert empty.status == 0 and empty.out.endswith("there is no history yet\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("given", [(), ("-s", "http://127.0.0.1:9"), ("-d", "mine.npz")], ids=str)
def test_a_device_needs_a_server_and_data(call: Command, given: tuple[str, ...]) -> None:
    assert "--server and either --data or --store" in call("device", *given, "--json").refusal()["message"]


def test_conditions_in_a_file(call: Command, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[when]\nbattery = 400\n")

    refused = call("device", "--status", "--config", file, "--json").refusal()

    assert "when.battery = 400" in refused["message"] and "0 to 100" in refused["message"]
