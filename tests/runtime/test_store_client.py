# SPDX-License-Identifier: Apache-2.0
"""A device that trains from a store while an app adds and forgets."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.options import FitOptions, StoreOptions, WhenOptions
from edgefl.runtime import ExampleStore
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.conditions import Guard, Scripted
from edgefl.runtime.learner import Stint, TrainerLearner
from edgefl.runtime.patience import Patience
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.transport import LoopbackTransport
from edgefl.wire import CheckIn
from tests.runtime.fakes import MODEL, SCHEMA, FakeServer
from tests.runtime.test_store import Opened, marked

pytestmark = pytest.mark.device


def clusters(count: int, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, count)
    return Examples((random.normal(size=(count, 6)) + y[:, None]).astype(np.float32), y)


@pytest.fixture
def store(tmp_path: Path, opened: Opened) -> ExampleStore:
    return opened(tmp_path / "s.db", MODEL)


def client(server: FakeServer, examples, folder: Path, sleep=lambda seconds: None, **options) -> DeviceClient:
    patience = Patience(sleep=sleep, nap_s=100.0)
    return DeviceClient(
        LoopbackTransport(server), examples, folder, backend="numpy", patience=patience, **options
    )


def test_each_round_trains_on_what_is_there(store: ExampleStore, tmp_path: Path) -> None:
    store.extend(clusters(20))
    server, counts = FakeServer(rounds=2), list[int]()
    answer = server.answer
    server.answer = lambda method, path, body, headers: (
        counts.append(CheckIn.from_bytes(body).examples) if path == "/v1/check-in" else None,
        answer(method, path, body, headers),
    )[1]

    for report in client(server, store, tmp_path / "watch").run():
        assert report.accepted
        store.extend(clusters(10, seed=report.round))

    assert counts == [20, 30, 40]


def test_the_same_bits_as_from_a_file(store: ExampleStore, tmp_path: Path) -> None:
    data = clusters(20)
    store.extend(data)
    servers = [FakeServer(rounds=2, epochs=2), FakeServer(rounds=2, epochs=2)]
    for server, examples, name in zip(servers, (store, data), "ab", strict=True):
        assert all(r.accepted for r in client(server, examples, tmp_path / name, device="one").run())

    assert servers[0].frames == servers[1].frames


def test_an_empty_store_is_waited_for(store: ExampleStore, tmp_path: Path) -> None:
    server, naps = FakeServer(rounds=1), []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            store.extend(clusters(9))

    (report,) = client(server, store, tmp_path / "watch", sleep).run()

    assert report.accepted and len(naps) >= 3


def test_new_examples_are_counted_past_those_that_made_room(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path / "s.db", MODEL, StoreOptions(keep_examples=8))
    store.extend(clusters(8))
    folder, seeds = tmp_path / "watch", itertools.count(1)
    guard = Guard(folder, WhenOptions(new_examples=5), Scripted(), every_s=0.0)

    def sleep(seconds: float) -> None:
        store.extend(clusters(1, seed=next(seeds)))

    reports = list(client(FakeServer(rounds=2), store, folder, sleep, guard=guard).run())

    assert [r.accepted for r in reports] == [True, True] and len(store) == 8 and store.ever_added() >= 13


def test_forgetting_stops_training_within_a_step(store: ExampleStore, tmp_path: Path) -> None:
    store.extend(clusters(40))
    store.add(*marked(1), key="secret")
    learner = TrainerLearner(MODEL, store, backend="numpy")
    values = {n: v for n, v in MODEL.parameters().items() if n in {p.name for p in SCHEMA.parameters}}
    asked: list[int] = []

    def should_stop() -> bool:
        asked.append(1)
        if len(asked) == 3:
            with ExampleStore(tmp_path / "s.db") as app:
                app.forget(key="secret")
        return False

    with pytest.raises(Interrupted):
        learner.learn(values, FitOptions(epochs=100), Stint(should_stop=should_stop))
    assert len(asked) == 3
    assert learner.learn(values, FitOptions(epochs=1)).steps == 5


def test_everything_forgotten_at_the_last_moment(store: ExampleStore, tmp_path: Path) -> None:
    store.extend(clusters(9))
    server, naps = FakeServer(rounds=1), []

    def before(method: str, path: str) -> None:
        if path.startswith("/v1/parameters") and not naps:
            store.forget(before=float("inf"))

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        store.extend(clusters(9, seed=4))

    server.before = before
    (report,) = client(server, store, tmp_path / "watch", sleep).run()

    assert report.accepted and naps


def test_forgetting_reaches_the_features_of_a_device(tmp_path: Path, head: Bundle, opened: Opened) -> None:
    store = opened(tmp_path / "s.db", head)
    store.extend(clusters(12), key="a")
    store.extend(clusters(12, seed=1), key="b")
    for report in client(FakeServer(rounds=1, bundle=head), store, tmp_path / "watch").run():
        assert report.accepted
    size = sum(f.stat().st_size for f in (tmp_path / "watch").rglob("*.features"))

    store.forget(key="a")

    left = sum(f.stat().st_size for f in (tmp_path / "watch").rglob("*.features"))
    assert 0 < left < 0.7 * size
