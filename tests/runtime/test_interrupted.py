# SPDX-License-Identifier: Apache-2.0
"""A device that is stopped while it trains goes on where it was, in another process too."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from edgefl.data import Examples
from edgefl.options import LimitOptions
from edgefl.runtime.belongings import CHECKPOINT
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.command.look import status_of
from edgefl.runtime.conditions.diary import Diary
from edgefl.runtime.conditions.readings import Scripted
from edgefl.runtime.limits import Stopwatch
from edgefl.runtime.patience import Patience
from edgefl.runtime.pause import Pause
from edgefl.runtime.report import RoundReport
from edgefl.runtime.steps import GraphSteps
from edgefl.runtime.transport import LoopbackTransport
from tests.runtime.crashes import Crash
from tests.runtime.fakes import FakeServer
from tests.runtime.test_crashes import NORM, examples

pytestmark = pytest.mark.device

STEPS = 4 * 3
"""Of a round: 4 epochs of 20 examples in batches of 8."""


class Home:
    """A device's folder, its server, and every step that was made for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **training) -> None:
        self.folder, self.server = folder, FakeServer(1, NORM, **{"epochs": 4, "momentum": 0.5, **training})
        self.steps, self.sleeps, self.after_step = 0, list[float](), lambda count: None
        step = GraphSteps.step

        def counted(run: GraphSteps, feeds) -> float:
            loss = step(run, feeds)
            self.steps += 1
            self.after_step(self.steps)
            return loss

        monkeypatch.setattr(GraphSteps, "step", counted)

    def run(
        self,
        until: Callable[[], bool] | None = None,
        data: Examples | None = None,
        sleep: Callable[[float], None] | None = None,
        **options,
    ) -> list[RoundReport]:
        """A process of its own, as far as anything but the folder is concerned."""
        client = DeviceClient(
            LoopbackTransport(self.server),
            data or examples(),
            self.folder,
            backend="numpy",
            patience=Patience(sleep=sleep or self.sleeps.append, nap_s=100.0, random=random.Random(1)),
            **options,
        )
        return list(client.run(until=until))

    def kept(self) -> bool:
        return (self.folder / CHECKPOINT).exists()

    def left(self) -> tuple[list[bytes], list[bytes]]:
        files = [(self.folder / f"{n}.safetensors").read_bytes() for n in ("personal", "residual")]
        return list(self.server.frames.values()), files


@pytest.fixture
def undisturbed(tmp_path, monkeypatch) -> Home:
    home = Home(tmp_path / "undisturbed", monkeypatch)
    home.run()
    assert home.steps == STEPS and not home.kept()
    return home


@pytest.fixture
def home(tmp_path, monkeypatch, undisturbed) -> Home:
    return Home(tmp_path / "device", monkeypatch)


def test_stopped_in_a_round_goes_on_in_another_process(home, undisturbed):
    while not home.server.frames:
        before = home.steps
        home.run(until=lambda before=before: home.steps >= before + 5)

    assert home.steps == STEPS and not home.kept()
    assert home.left() == undisturbed.left()


def test_paused_in_a_round_goes_on_in_the_same_process(home, undisturbed):
    def may_go_on() -> Pause | None:
        return Pause("too warm", 10.0) if home.steps in (3, 7) and len(home.sleeps) < home.steps else None

    [report] = home.run(may_go_on=may_go_on)

    assert report.accepted and home.steps == STEPS and len(home.sleeps) == 7
    assert home.left() == undisturbed.left()


@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_crash_after_any_step_costs_that_step_at_most(home, undisturbed, at):
    def crash(count: int) -> None:
        if count == at:
            raise Crash

    home.after_step = crash
    with pytest.raises(Crash):
        home.run(checkpoint_s=0.0)
    home.after_step = lambda count: None

    home.run(checkpoint_s=0.0)

    assert home.steps == STEPS + 1 and home.left() == undisturbed.left()


def test_a_full_disk_pauses_training_within_a_step(home, undisturbed, monkeypatch):
    """It is full from the third step on, and until the device has waited twice: training then goes on."""
    said, steps = list[str](), list[int]()

    def check_room(handle: int, mode: str) -> IO[bytes]:
        if home.steps >= 3 and len(home.sleeps) < 2:
            os.close(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        return fdopen(handle, mode)

    def sleep(seconds: float) -> None:
        home.sleeps.append(seconds)
        steps.append(home.steps)
        said.append(status_of(home.folder, Scripted())["doing"])

    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", check_room)

    [report] = home.run(checkpoint_s=0.0, sleep=sleep)

    assert report.accepted and home.steps == STEPS and home.left() == undisturbed.left()
    assert steps == [3, 3] and said == ["waits for room on the disk"] * 2
    assert [(e.event, e.said) for e in Diary(home.folder).entries()][:2] == [
        ("paused", "waits for room on the disk"),
        ("resumed", ""),
    ]
    assert status_of(home.folder, Scripted())["doing"].startswith("has finished")


def test_deadline_stops_a_long_task_within_a_step_and_is_asked_about(tmp_path, monkeypatch):
    home, clock = Home(tmp_path, monkeypatch, epochs=10_000), [0.0]
    checked_in = []

    def tick(count: int) -> None:
        clock[0] += 10.0

    def check_in(method: str, path: str) -> None:
        if "check-in" in path:
            checked_in.append(home.steps)

    home.after_step, home.server.before = tick, check_in
    patience = Patience(sleep=home.sleeps.append, random=random.Random(1), clock=lambda: clock[0])
    client = DeviceClient(
        LoopbackTransport(home.server), examples(), tmp_path, backend="numpy", patience=patience
    )

    reports = list(client.run(until=lambda: home.steps >= 20))

    assert [r.accepted for r in reports] == [False] * 3 and "deadline" in reports[0].error

    # The task says 60 seconds: six steps. The server says again 60 each time it is asked.
    assert checked_in == [0, 6, 12, 18] and home.steps == 20 and home.kept()
    assert all(0.0 < s <= 2.0 for s in home.sleeps) and home.sleeps


def test_checkpoint_for_another_assignment_is_dropped(home):
    home.run(until=lambda: home.steps >= 5)
    assert home.kept()
    home.server.over, home.server.rounds = 1, 2

    home.run()

    assert home.steps == 5 + STEPS and not home.kept()


def test_checkpoint_with_other_examples_is_dropped(home, caplog):
    home.run(until=lambda: home.steps >= 5)
    x, y = examples().x, examples().y

    [report] = home.run(data=Examples(x[1:], y[1:]))

    assert report.accepted and home.steps == 5 + STEPS
    assert "begins anew" in caplog.text


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_damaged_checkpoint_is_dropped(home, undisturbed, content, caplog):
    home.run(until=lambda: home.steps >= 5)
    (home.folder / CHECKPOINT).write_bytes(content)

    home.run()

    assert home.steps == 5 + STEPS and home.left() == undisturbed.left() and "dropped" in caplog.text


def test_diverged_round_leaves_no_checkpoint(tmp_path, monkeypatch):
    home = Home(tmp_path, monkeypatch, lr=1e38)
    home.server.max_bytes = 10

    home.run(until=lambda: bool(home.server.declines), checkpoint_s=0.0)

    assert not home.kept() and home.server.declines


def test_time_limit_counts_what_was_trained_before(home, monkeypatch):
    """Steps of a second: stopped after five of them, three are left of eight."""
    clock = [0.0]
    monkeypatch.setattr(Stopwatch.__init__, "__defaults__", (0.0, lambda: clock[0]))

    def tick(count: int) -> None:
        clock[0] += 1.0

    home.after_step = tick
    limits = LimitOptions(max_time_s=8.0)

    home.run(until=lambda: home.steps >= 5, limits=limits)
    [report] = home.run(limits=limits)

    assert report.accepted and home.steps == 8
    assert np.isfinite(report.loss)
