# SPDX-License-Identifier: Apache-2.0
"""A device that is killed, held back and lied to ends with the model of one that nobody disturbed."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import ServerNonsense, ServerUnreachable
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.patience import Patience
from edgefl.runtime.pause import Pause
from edgefl.runtime.transport import LoopbackTransport, Response
from edgefl.tensorfile import read_tensors
from tests.runtime.fakes import FakeServer
from tests.server.conftest import Server
from tests.server.hostile import HostileWay

NORM = Path(__file__).parents[1] / "fixtures" / "norm.edgefl"
TRAINING = {"epochs": 60, "lr": 0.1, "momentum": 0.5, "density": 0.2, "seed": 3}
DEVICE = """
import pathlib, sys, time
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.patience import Patience
from edgefl.runtime.pause import Pause
from edgefl.runtime.transport import HttpTransport
from tests.server.test_unkillable import examples
url, folder, held_back = sys.argv[1:]

def may_go_on():
    # A step takes 5 ms at least, so that there is something to kill on every machine.
    time.sleep(0.005)
    return Pause("held back", 0.05) if pathlib.Path(held_back).exists() else None

client = DeviceClient(
    HttpTransport(url, timeout_s=20.0, total_s=25.0) if not held_back
    else HttpTransport(url, timeout_s=1.0, total_s=1.5),
    examples(), folder, backend="numpy", device="d", checkpoint_s=0.0,
    patience=Patience(first_s=0.02, longest_s=0.1),
    may_go_on=may_go_on if held_back else lambda: None,
)
for report in client.run():
    print(report, flush=True)
"""


def examples() -> Examples:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6)).astype(np.float32)
    return Examples(x, (x[:, 0] > 0).astype(np.int32))


@dataclass
class Federation:
    """A server for one device, and the device's folder."""

    server: Server
    folder: Path
    held_back: str = ""

    def start(self, url: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", DEVICE, url, str(self.folder), self.held_back]
        with open(self.folder.with_suffix(".log"), "ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, env=environment)

    def left(self) -> dict[str, bytes]:
        """The newest model, and what the device kept to itself."""
        schema, remote = Bundle.open(NORM).schema(), self.server.remote()
        kept = {"model": schema.flatten(remote.parameters(remote.status().version, schema)).tobytes()}
        for name in ("personal", "residual"):
            arrays = read_tensors((self.folder / f"{name}.safetensors").read_bytes())
            kept |= {f"{name}/{key}": value.tobytes() for key, value in arrays.items()}
        return kept


@pytest.fixture
def federation(tmp_path) -> Iterator[Callable[..., Federation]]:
    """A function that starts one, each with a server of its own."""
    servers: list[Server] = []

    def start(name: str, rounds: int, held_back: str = "") -> Federation:
        folder = tmp_path / f"server-{name}"
        folder.mkdir()
        options = {"bundle": str(NORM), "goal": 1, "surplus": 0.0, "rounds": rounds, "training": TRAINING}
        servers.append(Server(folder, {**options, "long_poll_s": 0.2, "retry_after_s": 0.05}))
        return Federation(servers[-1].start(), tmp_path / name, held_back)

    yield start
    for server in servers:
        server.stop()


@pytest.mark.parametrize(("rounds", "most"), [(6, 8), pytest.param(100, 120, marks=pytest.mark.slow)])
def test_disturbed_at_random_it_ends_with_the_model_of_an_undisturbed_one(federation, tmp_path, rounds, most):
    """Killed `most` times at most, held back in between, on a way that spoils half of its connections."""
    calm = federation("calm", rounds)
    assert calm.start(calm.server.url).wait(timeout=600) == 0
    wild = federation("wild", rounds, str(tmp_path / "held-back"))
    dice, kills, held_back = random.Random(rounds), 0, Path(wild.held_back)

    with HostileWay(wild.server.port, seed=rounds) as way:
        process = wild.start(way.url)
        deadline = time.monotonic() + 900
        while process.poll() is None:
            assert time.monotonic() < deadline, wild.folder.with_suffix(".log").read_text()[-3000:]
            time.sleep(dice.uniform(0.2, 2.5))
            if dice.random() < 0.4:
                held_back.touch()
                time.sleep(dice.uniform(0.05, 0.4))
                held_back.unlink()
            if kills < most and process.poll() is None:
                process.kill()
                process.wait()
                kills += 1
                process = wild.start(way.url)

    log = wild.folder.with_suffix(".log").read_text()
    assert process.returncode == 0, log[-3000:]
    assert kills > 0 and way.spoiled > 0 and "Traceback" not in log and "\x1b" not in log
    infos = wild.server.rounds().rounds
    assert [info.updates for info in infos] == [1] * rounds
    # Uploads that were cut on their way; the device sent the same bytes again.
    assert {row.reason for info in infos for row in info.refused} <= {"malformed-request"}
    assert wild.left() == calm.left()


def test_a_hundred_rounds_take_no_more_memory_than_twenty(tmp_path, monkeypatch):
    """One process, with pauses and a server that fails at random: less than a kilobyte stays of a round."""
    # What pytest keeps of the log is not the client's.
    monkeypatch.setattr(logging.getLogger("edgefl.client"), "disabled", True)
    server, dice, sizes = FakeServer(100, Bundle.open(NORM), density=0.2), random.Random(1), []

    def fail(method: str, path: str) -> Response | None:
        server.requests.clear()
        chance = dice.random()
        if chance < 0.1:
            raise ServerUnreachable("down")
        if chance < 0.2:
            raise ServerNonsense("no HTTP")
        return Response(200, {}, json.dumps({"no": "protocol"}).encode()) if chance < 0.3 else None

    server.before = fail
    client = DeviceClient(
        LoopbackTransport(server),
        examples(),
        tmp_path,
        backend="numpy",
        patience=Patience(sleep=lambda _: None, nap_s=1e9, random=random.Random(1)),
        may_go_on=lambda: Pause("busy") if dice.random() < 0.1 else None,
        checkpoint_s=0.0,
    )
    tracemalloc.start()
    try:
        for report in client.run():
            assert report.accepted
            server.uploads.clear()
            server.frames.clear()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()

    assert len(sizes) == 100
    assert sizes[-1] - sizes[19] < 80 * 1000
