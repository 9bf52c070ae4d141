# SPDX-License-Identifier: Apache-2.0
"""Servers killed at random points, one and two on one database: the bits of a run that nobody disturbed."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from edgefl.errors import ServerNonsense, ServerUnreachable
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import HttpTransport
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.wire import Training
from tests.server.conftest import MODEL, Server

DEVICES = ("a", "b", "c")
OPTIONS = {"goal": 3, "surplus": 0.0, "deadline_s": 600.0, "server_momentum": 0.5}


def seed_of(device: str, number: int) -> int:
    return 1000 * number + ord(device)


def undisturbed(rounds: int, make_frame, hello) -> list[bytes]:
    """Every version's parameters when the same devices send the same updates in peace."""
    settings = Settings(MODEL, "unused", rounds=rounds, training=Training.of(density=0.2), **OPTIONS)
    coordinator, made = Coordinator(settings, store=MemoryStore()), []
    for number in range(1, rounds + 1):
        for device in DEVICES:
            task = coordinator.check_in(hello(device)).task
            frame = make_frame(seed_of(device, number), task.base_version)
            coordinator.accept(number, task.assignment, frame)
        coordinator.tick()
        made.append(coordinator.shelf.parameters(number))
    return made


class Device(threading.Thread):
    """Asks whichever server answers, until the rounds are over."""

    def __init__(self, name: str, servers: list[Server], make_frame, hello) -> None:
        super().__init__()
        self.name, self._servers, self._dice = name, servers, random.Random(name)
        self._make_frame, self._hello = make_frame, hello
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._insist(self._turn):
                pass
        except BaseException as exc:
            self.failure = exc

    def _turn(self, remote: Remote) -> bool:
        answer = remote.check_in(self._hello(self.name))
        if (task := answer.task) is not None:
            frame = self._make_frame(seed_of(self.name, task.round), task.base_version)
            self._insist(lambda other: other.upload(task.round, task.assignment, frame))
        return answer.finished

    def _insist(self, ask):
        until = time.monotonic() + 300
        while True:
            try:
                with HttpTransport(self._dice.choice(self._servers).url, timeout_s=10) as transport:
                    return ask(Remote(transport))
            except (ServerUnreachable, ServerNonsense):
                assert time.monotonic() < until
                time.sleep(self._dice.uniform(0.0, 0.1))


def run_killed(servers: list[Server], rounds: int, kills: int, make_frame, hello) -> tuple[list[bytes], int]:
    devices = [Device(name, servers, make_frame, hello) for name in DEVICES]
    for device in devices:
        device.start()
    dice, done = random.Random(7), 0
    while done < kills and any(device.is_alive() for device in devices):
        time.sleep(dice.uniform(0.0, 0.4))
        server = dice.choice(servers)
        server.kill()
        server.start()
        done += 1
    for device in devices:
        device.join(timeout=300)
        assert device.failure is None and not device.is_alive(), device.failure
    assert [info.updates for info in servers[0].rounds().rounds] == [len(DEVICES)] * rounds
    paths = [f"/v1/parameters/{number}" for number in range(1, rounds + 1)]
    transport = servers[-1].transport()
    return [transport.request("GET", path, limit=1 << 20).body for path in paths], done


@pytest.mark.parametrize(
    ("kills", "rounds"), [(2, 20), pytest.param(50, 400, marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize(("database", "processes"), [("sqlite", 1), ("postgres", 2)], indirect=["database"])
def test_kills_change_no_bit(tmp_path: Path, database, processes, kills, rounds, make_frame, hello):
    servers = []
    try:
        for number in range(processes):
            folder = tmp_path / f"server-{number}"
            folder.mkdir()
            options = {"database": database, "rounds": rounds, "long_poll_s": 0.2, "retry_after_s": 0.0}
            options |= {"training": {"density": 0.2}, "keep_versions": 1000, **OPTIONS}
            servers.append(Server(folder, options).start())

        made, done = run_killed(servers, rounds, kills, make_frame, hello)
    finally:
        for server in servers:
            server.stop()

    assert done > 0
    for number, (found, wanted) in enumerate(
        zip(made, undisturbed(rounds, make_frame, hello), strict=True), 1
    ):
        assert found == wanted, f"version {number}"


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_two_servers_serve_the_same_rounds(database, make_frame, hello):
    settings = Settings(MODEL, database, rounds=5, training=Training.of(density=0.2), **OPTIONS)
    servers = [Coordinator(settings), Coordinator(settings)]
    turn = 0
    for number in range(1, 6):
        for device in DEVICES:
            given, taken = servers[turn % 2], servers[(turn + 1) % 2]
            task = given.check_in(hello(device)).task
            assert task.round == number
            frame = make_frame(seed_of(device, number), task.base_version)
            assert not taken.accept(number, task.assignment, frame).duplicate
            assert given.accept(number, task.assignment, frame).duplicate
            turn += 1
        threads = [threading.Thread(target=server.tick) for server in servers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [server.status().version for server in servers] == [5, 5]
    assert servers[0].shelf.parameters(5) == undisturbed(5, make_frame, hello)[-1]
    for server in servers:
        server.close()
