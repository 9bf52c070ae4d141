# SPDX-License-Identifier: Apache-2.0
"""What a device's owner allows is what a round costs at most."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl.delta import MODES
from edgefl.errors import OptionError
from edgefl.options import CHOOSING_MODES, LimitOptions
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.learner import Stint, TrainerLearner
from edgefl.runtime.limits import Duty, Stopwatch, limited
from edgefl.runtime.patience import Patience
from edgefl.runtime.transport import LoopbackTransport
from edgefl.wire import Task, Training
from tests.runtime.test_client import MODEL, FakeServer, examples, residual

pytestmark = pytest.mark.device

TASK = Task("a" * 32, 1, 0, MODEL.schema().id.hex(), Training.of(epochs=9, steps=50), 2, 5000, 60.0)


@pytest.mark.parametrize(
    ("asked", "allowed", "made"),
    [
        ({"epochs": 9, "steps": 50}, {"max_epochs": 2, "max_steps": 7, "max_payload": 300}, (2, 7, 300)),
        ({"epochs": 9, "steps": 50}, {"max_epochs": 20, "max_steps": 70, "max_payload": 9000}, (9, 50, 5000)),
        ({"epochs": 9, "steps": 0}, {"max_steps": 7}, (9, 7, 5000)),
        ({"epochs": 9, "steps": 0}, {"max_epochs": 3}, (3, 0, 5000)),
        ({"epochs": 9, "steps": 50}, {}, (9, 50, 5000)),
    ],
)
def test_the_smaller_of_both_holds(asked: dict, allowed: dict, made: tuple[int, int, int]) -> None:
    found = limited(replace(TASK, training=Training.of(**asked)), LimitOptions(**allowed))

    assert (found.training.fit.epochs, found.training.fit.steps, found.max_bytes) == made


def client(server: FakeServer, folder: Path, sleeps: list[float], **limits: object) -> DeviceClient:
    return DeviceClient(
        LoopbackTransport(server), examples(), folder, backend="numpy",
        patience=Patience(sleep=sleeps.append, random=random.Random(1)), limits=LimitOptions(**limits),
    )  # fmt: skip


def test_a_server_cannot_exceed_them(tmp_path: Path) -> None:
    greedy, modest = FakeServer(rounds=1, epochs=10_000), FakeServer(rounds=1, epochs=2, steps=5)

    list(client(greedy, tmp_path / "a", [], max_epochs=2, max_steps=5).run())
    list(client(modest, tmp_path / "b", []).run())

    assert greedy.frames[1] == modest.frames[1]


def test_time_ends_training_with_what_it_gave(tmp_path: Path) -> None:
    """The first step is always made, and takes more than a nanosecond."""
    short, one = FakeServer(rounds=1, epochs=10_000), FakeServer(rounds=1, steps=1)

    (report,) = client(short, tmp_path / "a", [], max_time_s=1e-9).run()
    list(client(one, tmp_path / "b", []).run())

    assert report.accepted and short.frames[1] == one.frames[1]


@pytest.mark.parametrize("mode", MODES)
def test_an_update_is_made_to_fit_or_not_sent(tmp_path: Path, mode: str) -> None:
    density = {"density": 1.0} if mode in CHOOSING_MODES else {}
    server = FakeServer(rounds=1, mode=mode, **{"density": 0.1, **density})

    (report,) = client(server, tmp_path, [], max_payload=150).run()

    if mode in CHOOSING_MODES:
        assert report.accepted and 0 < len(server.frames[1]) <= 150
    else:
        fits = report.accepted and len(server.frames[1]) <= 150
        assert fits or (not server.frames and "allowed 150" in server.declines[0])


def test_what_an_update_left_out_to_fit_is_kept_for_the_next(tmp_path: Path) -> None:
    """Of an update that is sent whole nothing is left out."""
    left = {}
    for limit in (0, 150):
        server, folder = FakeServer(rounds=1, density=1.0), tmp_path / str(limit)
        list(client(server, folder, [], max_payload=limit).run())
        left[limit] = np.abs(residual(folder)).max(), len(server.frames[1])

    assert left[0][0] < left[150][0] and left[0][1] > 150 >= left[150][1]


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_rests_take_the_rest_of_the_time() -> None:
    clock = Clock()
    duty = Duty(25, clock.sleep, clock)
    duty.begin()

    for _ in range(100):
        clock.now += 0.01
        assert not duty.rest(lambda: False)

    assert 3.0 - 0.05 <= sum(clock.slept) <= 3.0
    assert all(0.05 <= nap <= 1.0 for nap in clock.slept)


def test_all_of_the_time_needs_no_rest() -> None:
    clock = Clock()
    duty = Duty(100, clock.sleep, clock)
    clock.now += 1000.0

    assert not duty.rest(lambda: False) and clock.slept == []


def test_a_long_rest_ends_when_training_does() -> None:
    clock = Clock()
    duty = Duty(1, clock.sleep, clock)
    clock.now += 10.0

    assert duty.rest(lambda: len(clock.slept) == 3) and clock.slept == [1.0] * 3


def test_waiting_between_rounds_is_no_work() -> None:
    clock = Clock()
    duty = Duty(50, clock.sleep, clock)
    clock.now += 1000.0
    duty.begin()
    clock.now += 1.0
    duty.rest(lambda: False)

    assert sum(clock.slept) == 1.0


def test_the_client_rests_between_its_steps(tmp_path: Path) -> None:
    sleeps: list[float] = []

    list(client(FakeServer(rounds=1, epochs=4), tmp_path, sleeps, duty=1).run())

    # 99 times what 23 steps took: over 22 microseconds each, which an interpreted graph always takes.
    assert sum(sleeps) > 0.05


def test_a_stopwatch_does_not_count_rests() -> None:
    clock = Clock()

    def should_stop() -> bool:
        clock.now += 100.0
        return False

    watch = Stopwatch(should_stop, 2.5, clock=clock)
    clock.now += 50.0  # features
    asked = []
    for _ in range(4):
        asked.append(watch())
        clock.now += 1.0

    assert asked == [False, False, False, True] and not watch.interrupted


def test_threads_reach_the_engine(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    learner = TrainerLearner(MODEL, examples(), backend="onnx", threads=2)

    assert learner._trainer.backend.name == "onnx"
    assert learner.learn(MODEL.parameters(), TASK.training.fit, Stint(seconds=1e-9)).loss > 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_epochs", -1), ("max_time_s", 0.0), ("duty", 0), ("duty", 101), ("nice", -1), ("nice", 20),
     ("threads", 0), ("max_payload", -1)],
)  # fmt: skip
def test_impossible_limits_are_refused(field: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"{field}="):
        LimitOptions(**{field: value})
