# SPDX-License-Identifier: Apache-2.0
"""The power goes, the disk is full, the clock jumps: the rounds end as if nothing had been."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.conditions.diary import Diary
from edgefl.runtime.conditions.guard import Guard
from edgefl.runtime.learner import TrainerLearner
from edgefl.runtime.patience import Patience
from edgefl.runtime.trainer import Trainer
from edgefl.runtime.transport import LoopbackTransport
from edgefl.tensorfile import read_tensors
from tests.runtime.crashes import Crash, Disk
from tests.runtime.fakes import FakeServer

pytestmark = pytest.mark.device

NORM = Bundle.open(Path(__file__).parents[1] / "fixtures" / "norm.edgefl")
ROUNDS = 2


def examples() -> Examples:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6)).astype(np.float32)
    return Examples(x, (x[:, 0] > 0).astype(np.int32))


@dataclass
class Device:
    """A device whose folder survives it, and its server."""

    folder: Path
    trainer: Trainer
    server: FakeServer = field(
        default_factory=lambda: FakeServer(
            ROUNDS, NORM, epochs=2, density=0.2, momentum=0.5, algorithm="feddyn"
        )
    )
    on_sleep: Callable[[], None] = lambda: None
    checkpoint_s: float = 60.0

    def run(self) -> None:
        client = DeviceClient(
            LoopbackTransport(self.server),
            None,
            self.folder,
            backend="numpy",
            learner=lambda bundle: TrainerLearner(bundle, examples(), trainer=self.trainer),
            patience=Patience(sleep=lambda _: self.on_sleep(), random=random.Random(1)),
            checkpoint_s=self.checkpoint_s,
        )
        list(client.run())

    def left(self) -> tuple[dict[int, bytes], dict[str, bytes]]:
        """What the server has, and what the device kept to itself."""
        kept = {}
        for name in ("personal", "residual", "drift"):
            arrays = read_tensors((self.folder / f"{name}.safetensors").read_bytes())
            kept |= {f"{name}/{key}": value.tobytes() for key, value in arrays.items()}
        return self.server.frames, kept


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    return Trainer(NORM, "numpy")


@pytest.fixture
def disk(monkeypatch) -> Disk:
    """The disk, of which the diary takes no part: what it cannot write it does without."""
    monkeypatch.setattr(Guard, "_tell", lambda *_: None)
    monkeypatch.setattr(Diary, "write", lambda *_: None)
    monkeypatch.setattr(Diary, "count_update", lambda *_: None)
    return Disk(monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(trainer, tmp_path_factory) -> Device:
    device = Device(tmp_path_factory.mktemp("undisturbed"), trainer)
    device.run()
    return device


@pytest.mark.parametrize("checkpoint_s", [60.0, pytest.param(0.0, marks=pytest.mark.slow)])
def test_a_crash_at_any_operation_loses_and_doubles_nothing(
    trainer, undisturbed, tmp_path, disk, checkpoint_s
):
    """In the slow case training is kept after every step too."""
    at = 0
    while True:
        at += 1
        device = Device(tmp_path / "device", trainer, checkpoint_s=checkpoint_s)
        disk.arm(at)
        try:
            device.run()
        except Crash:
            disk.arm(0)
            device.run()
            assert device.left() == undisturbed.left(), f"crash at operation {at}"
            assert len(set(device.server.uploads)) == ROUNDS
            shutil.rmtree(device.folder)
            continue
        break

    assert device.left() == undisturbed.left() and at > 60


@pytest.mark.parametrize("lasts", [pytest.param(1, marks=pytest.mark.slow), 3, 10_000])
def test_a_full_disk_at_any_operation_is_waited_out(trainer, undisturbed, tmp_path, disk, lasts):
    """For one operation, for a few, or until the device has waited."""
    at = 0
    while True:
        at += 1
        device = Device(tmp_path / "device", trainer)
        disk.arm(at, at + lasts, full=True)
        device.on_sleep = lambda: disk.arm(0) if lasts > 3 else None
        device.run()
        assert device.left() == undisturbed.left(), f"disk full at operation {at}"
        if disk.at and disk.count < at:
            break
        assert len(device.server.uploads) == ROUNDS
        shutil.rmtree(device.folder)

    assert at > 50


def test_a_clock_that_jumps_changes_nothing(trainer, undisturbed, tmp_path, monkeypatch):
    jumps = random.Random(2)
    monkeypatch.setattr(time, "time", lambda: jumps.uniform(-1e9, 1e10))
    monkeypatch.setattr(time, "time_ns", lambda: int(jumps.uniform(-1e9, 1e10) * 1e9))
    device = Device(tmp_path, trainer)

    device.run()

    assert device.left() == undisturbed.left()
