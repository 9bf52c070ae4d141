# SPDX-License-Identifier: Apache-2.0
"""What is not on disk yet is seen by nobody but the event that writes it."""

from __future__ import annotations

import contextlib
import threading

import pytest

from edgefl.errors import StoreError
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.store import Store
from edgefl.wire import Training
from tests.server.conftest import MODEL
from tests.server.test_kills import undisturbed


class SlowDisk(Store):
    """Calls a function when all of an event is written but not committed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.before_commit = lambda: None

    @contextlib.contextmanager
    def event(self):
        with super().event() as head:
            yield head
            self.before_commit()


@pytest.fixture(params=["sqlite", "postgres"])
def slow(request: pytest.FixtureRequest, tmp_path):
    at = str(tmp_path / "rounds.db") if request.param == "sqlite" else request.getfixturevalue("postgres")()
    settings = Settings(
        MODEL,
        at,
        rounds=2,
        goal=3,
        surplus=0.0,
        deadline_s=600.0,
        server_momentum=0.5,
        training=Training.of(density=0.2),
    )
    store = SlowDisk(settings.database_url())
    coordinator = Coordinator(settings, store=store)
    yield coordinator, store
    coordinator.close()


def start(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.3)
    return thread


def test_a_round_closes_on_no_update_that_is_not_on_disk(slow, make_frame, hello):
    coordinator, store = slow
    tasks = {device: coordinator.check_in(hello(device)).task for device in "abc"}
    frames = {device: make_frame(1000 + ord(device), 0) for device in "abc"}
    for device in "ab":
        coordinator.accept(1, tasks[device].assignment, frames[device])
    seen, answers, threads = [], [], []

    def meanwhile() -> None:
        store.before_commit = lambda: None
        seen.append(coordinator._present.round.full)
        again = lambda: answers.append(coordinator.accept(1, tasks["c"].assignment, frames["c"]))  # noqa: E731
        other = lambda: seen.append(coordinator._present.glance().full)  # noqa: E731
        threads.extend([start(coordinator.tick), start(again), start(other)])
        seen.append(list(answers))

    store.before_commit = meanwhile
    first = coordinator.accept(1, tasks["c"].assignment, frames["c"])
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    coordinator.tick()

    assert not first.duplicate and [answer.duplicate for answer in answers] == [True]
    if not store.shared:
        # Its own thread sees the round full; nobody else, and nobody was told that the update is known.
        assert seen == [True, False, []]
    assert coordinator.rounds()[0].updates == 3
    assert coordinator.shelf.parameters(1) == undisturbed(1, make_frame, hello)[0]


def test_a_round_without_its_updates_is_not_closed(slow, make_frame, hello):
    coordinator, store = slow
    for device in "abc":
        task = coordinator.check_in(hello(device)).task
        coordinator.accept(1, task.assignment, make_frame(ord(device), 0))
    told = store.updates_of
    store.updates_of = lambda number: told(number)[1:]

    with pytest.raises(StoreError, match="took 3 updates, the database has 2"):
        coordinator.tick()

    store.updates_of = told
    coordinator.tick()
    assert coordinator.status().version == 1
