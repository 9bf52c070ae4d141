# SPDX-License-Identifier: Apache-2.0
"""One server per SQLite database: no update is acknowledged that does not count."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edgefl.errors import ServerUnreachable, StoreError, StoreLost
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.settings import Settings
from edgefl.wire import Training

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"


def settings(path: Path) -> Settings:
    return Settings(MODEL, path, goal=2, rounds=3, downlink=0.0, training=Training.of(density=0.2))


@pytest.fixture
def coordinator(tmp_path):
    made = Coordinator(settings(tmp_path / "rounds.db"))
    yield made
    made.close()


def remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-owner"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def test_second_server_on_a_database_is_told_who_has_it(coordinator, tmp_path, hello):
    with pytest.raises(StoreError, match=r"rounds\.db is in use by another server \(process \d+\)"):
        Coordinator(settings(tmp_path / "rounds.db"))

    assert coordinator.check_in(hello("a")).task is not None


def test_database_is_free_once_its_server_has_closed(coordinator, tmp_path):
    coordinator.close()

    Coordinator(settings(tmp_path / "rounds.db")).close()


def test_nothing_is_acknowledged_once_the_database_is_deleted(coordinator, tmp_path, make_frame, hello):
    task = coordinator.check_in(hello("a")).task
    remove(tmp_path / "rounds.db")

    with pytest.raises(StoreLost, match="was deleted or replaced"):
        coordinator.accept(1, task.assignment, make_frame(1))
    with pytest.raises(StoreLost):
        coordinator.tick()


def test_server_whose_database_another_one_took_stops(coordinator, tmp_path, make_frame, hello):
    task = coordinator.check_in(hello("a")).task
    # The lock's file is deleted, so the second server does not see the first one.
    (tmp_path / "rounds.db-owner").unlink()
    second = Coordinator(settings(tmp_path / "rounds.db"))

    with pytest.raises(StoreLost, match="another server has taken over"):
        coordinator.accept(1, task.assignment, make_frame(1))

    assert not second.accept(1, task.assignment, make_frame(1)).duplicate
    second.close()


@on_sqlite
def test_server_process_stops_cleanly_when_its_database_is_deleted(serve, make_frame, hello):
    server = serve(goal=2)
    remote = server.remote()
    task = remote.check_in(hello("a")).task
    remove(server.folder / "rounds.db")

    with pytest.raises(ServerUnreachable):
        remote.upload(1, task.assignment, make_frame(1))

    assert server.process.wait(timeout=30) not in (0, -9)
    assert "was deleted or replaced while the server used it" in (server.folder / "log.txt").read_text()


@on_sqlite
def test_server_process_that_is_killed_leaves_its_database_to_the_next(serve, hello):
    server = serve(goal=2)
    task = server.remote().check_in(hello("a")).task

    server.kill()
    server.start()

    assert server.remote().check_in(hello("a")).task.assignment == task.assignment


def test_versions_nobody_needs_are_pruned(tmp_path, make_frame, hello):
    asked = Settings(MODEL, tmp_path / "x.db", goal=1, rounds=40, keep_versions=12)
    coordinator = Coordinator(asked)
    for number in range(1, 31):
        task = coordinator.check_in(hello("a")).task
        coordinator.accept(number, task.assignment, make_frame(number, number - 1, density=0.01))
        coordinator.tick()
    coordinator.close()

    with sqlite3.connect(tmp_path / "x.db") as db:
        kept = [v for (v,) in db.execute("select version from versions where length(parameters) > 0")]
        states = [v for (v,) in db.execute("select version from versions where length(optimizer) > 0")]
        links = [v for (v,) in db.execute("select version from publications order by version")]
    db.close()

    assert kept == [0, *range(19, 31)]
    assert states == [30]
    assert links == list(range(19, 31))
