# SPDX-License-Identifier: Apache-2.0
"""A client that waits for its conditions, and what its owner is told."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefl.options import WhenOptions
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.conditions import Guard, Readings, Scripted
from edgefl.runtime.conditions.diary import HISTORY, UPDATES, Diary, Entry
from edgefl.runtime.conditions.guard import read_state
from edgefl.runtime.learner import TrainerLearner
from edgefl.runtime.lock import only_one, owner
from edgefl.runtime.patience import Patience
from edgefl.runtime.transport import LoopbackTransport
from tests.runtime.test_client import MODEL, FakeServer, ScriptedLearner, examples

pytestmark = pytest.mark.device

NOW = 1_800_000_000.0
IN, OUT = Readings(charging=True, metered=False), Readings(charging=False, metered=True)


class Device:
    """A client on one folder, with a clock, readings and waits that a test holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now, self.slept = folder, NOW, list[float]()
        self.conditions = Scripted(IN)
        self.learner = ScriptedLearner()
        self.on_sleep: Callable[[], None] = lambda: None

    def client(self, server: FakeServer, **when: object) -> DeviceClient:
        return DeviceClient(
            LoopbackTransport(server), None, self.folder, backend="numpy",
            learner=lambda _: self.learner,
            patience=Patience(sleep=self._sleep, nap_s=1e9, random=random.Random(1)),
            guard=Guard(
                self.folder, WhenOptions(**when), self.conditions, clock=lambda: self.now, every_s=0.0
            ),
        )  # fmt: skip

    def history(self) -> list[tuple[str, str]]:
        return [(e.event, e.said) for e in Diary(self.folder).entries()]

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.on_sleep()
        assert len(self.slept) < 2000, "waits for ever"


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_nothing_is_asked_of_the_server_while_it_may_not_train(device: Device) -> None:
    server = FakeServer(rounds=2)
    device.conditions.set(*[OUT] * 5, IN)

    asked = []
    device.on_sleep = lambda: asked.append(len(server.requests))
    reports = list(device.client(server, charging=True).run())

    assert [r.accepted for r in reports] == [True, True]
    assert asked[:5] == [0] * 5 and all(30 <= s <= 120 for s in device.slept[:5])
    assert [event for event, _ in device.history()] == ["paused", "resumed", "round", "round"]
    assert device.history()[0] == ("paused", "The device is not charging.")


def test_it_waits_between_rounds(device: Device) -> None:
    server = FakeServer(rounds=3)
    client = device.client(server, charging=True)
    done = []
    device.on_sleep = lambda: device.conditions.set(IN)
    for report in client.run():
        done.append(report.round)
        device.conditions.set(OUT)

    assert done == [1, 2, 3] and len(server.declines) == 0
    assert [event for event, _ in device.history()].count("paused") == 3


def test_updates_of_a_day_are_counted_over_restarts(device: Device) -> None:
    server = FakeServer(rounds=5)
    for _ in range(2):
        next(device.client(server, per_day=2).run())
    assert device.slept == []

    list(device.client(server, per_day=2).run(max_rounds=1))

    assert device.now - NOW >= 86_400
    assert list(server.frames) == [1, 2, 3]


def test_a_count_that_is_lost_is_said_and_stops_nothing(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    (device.folder / UPDATES).write_text("half a fi")

    assert [r.accepted for r in device.client(FakeServer(rounds=1), per_day=2).run()] == [True]
    assert UPDATES in caplog.text


def test_new_examples_are_counted_from_the_last_update(device: Device) -> None:
    server = FakeServer(rounds=2)
    device.learner.examples = 12

    def more() -> None:
        device.learner.examples += 1

    device.on_sleep = more
    client = device.client(server, new_examples=10)
    assert [r.round for r in client.run(max_rounds=1)] == [1]
    assert device.slept == []

    # The same dozen again is not new.
    stop = iter([False, False, False, True])
    assert list(device.client(server, new_examples=10).run(until=lambda: next(stop))) == []
    assert device.history()[-1] == (
        "paused", "0 examples have come since the last update, needed are 10."
    )  # fmt: skip


def test_the_server_s_conditions_hold_beside_the_owner_s(device: Device) -> None:
    server = FakeServer(rounds=1)
    server.training = replace_when(server, charging=True)
    device.conditions.set(OUT)
    stop = iter([False] * 8 + [True] * 9)

    reports = list(device.client(server, battery=0).run(until=lambda: next(stop)))

    assert [r.error for r in reports] == ["The device is not charging."]
    assert server.declines == ["The device is not charging."]
    # Told once: from then on the device waits by itself, and its next process too.
    assert sum("check-in" in request for request in server.requests) == 1
    server.requests.clear()
    device.on_sleep = lambda: device.conditions.set(IN) if len(device.slept) > 12 else None
    server.over = 0
    assert [r.accepted for r in device.client(server).run()] == [True]
    assert sum("check-in" in request for request in server.requests) == 2  # the round, and the end
    assert len(server.declines) == 1


def test_an_update_waits_for_a_network_that_is_free(device: Device) -> None:
    server = FakeServer(rounds=1)
    metered_while_training = iter([IN, IN, IN, OUT, OUT, IN])
    device.conditions.read = lambda: next(metered_while_training, IN)  # type: ignore[method-assign]

    assert [r.accepted for r in device.client(server, unmetered=True).run()] == [True]

    assert len(device.slept) == 2 and device.history()[0][0] == "paused"


def test_until_ends_a_wait_for_conditions(device: Device) -> None:
    device.conditions.set(OUT)
    server = FakeServer()

    assert list(device.client(server, charging=True).run(until=lambda: len(device.slept) > 2)) == []

    assert server.requests == []
    state = read_state(device.folder)
    assert state is not None and state.doing == "was stopped" and state.when.charging


def test_training_stops_within_a_step_and_is_taken_up_again(device: Device) -> None:
    reads = []

    def read() -> Readings:
        reads.append(1)
        return OUT if len(reads) == 20 else IN

    device.conditions.read = read  # type: ignore[method-assign]
    device.learner = TrainerLearner(MODEL, examples(), backend="numpy")
    server = FakeServer(rounds=1, epochs=3)

    reports = list(device.client(server, charging=True).run())

    assert [r.accepted for r in reports] == [True]
    assert [event for event, _ in device.history()] == ["paused", "resumed", "round"]
    assert sum("check-in" in request for request in server.requests) == 3


def test_making_a_client_touches_nothing(device: Device, tmp_path: Path) -> None:
    device.client(FakeServer(), charging=True)

    assert not (tmp_path / HISTORY).exists() and not (tmp_path / "state.json").exists()


def test_the_history_has_an_end(tmp_path: Path) -> None:
    diary = Diary(tmp_path, limit_bytes=4000)

    for number in range(1, 200):
        diary.write(Entry(NOW + number, "round", number, True, 0.5))
        assert (tmp_path / HISTORY).stat().st_size <= 4000

    kept = [entry.round for entry in diary.entries()]
    assert kept == list(range(kept[0], 200)) and len(kept) > 5


def test_a_line_cut_short_by_a_crash_costs_itself_only(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    for number in (1, 2):
        diary.write(Entry(NOW, "round", number))
    whole = (tmp_path / HISTORY).read_bytes()
    for cut in range(len(whole)):
        (tmp_path / HISTORY).write_bytes(whole[:cut])
        diary.write(Entry(NOW, "round", 3))
        found = [entry.round for entry in diary.entries()]
        assert found[-1] == 3 and found[:-1] in ([], [1], [1, 2])


def test_a_disk_that_refuses_costs_entries_and_no_round(device: Device) -> None:
    (device.folder / HISTORY).mkdir()
    (device.folder / UPDATES).mkdir()

    assert [r.accepted for r in device.client(FakeServer(rounds=2), per_day=9).run()] == [True, True]


def test_a_history_of_junk_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_bytes(b'\xff\n[]\n{"at": 1, "event": "nap"}\n{"at": 1e300}\n')

    assert list(Diary(tmp_path).entries()) == []


def test_asking_for_the_owner_leaves_the_lock(tmp_path: Path) -> None:
    assert owner(tmp_path) is None and list(tmp_path.iterdir()) == []
    with only_one(tmp_path):
        assert owner(tmp_path) is not None
    assert owner(tmp_path) is None


def replace_when(server: FakeServer, **when: object):
    return type(server.training)(server.training.fit, server.training.coding, WhenOptions(**when))
