# SPDX-License-Identifier: Apache-2.0
"""The example store: what is added stays, what is beyond a limit goes, what is forgotten is nowhere."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import DataError, DataShape, LabelRange, OptionError, StoreError
from edgefl.options import StoreOptions
from edgefl.runtime import FeatureCache, Trainer
from edgefl.runtime.feature_cache import example_digests
from edgefl.runtime.store import ExampleStore
from edgefl.runtime.store.layout import Layout
from tests.runtime.conftest import FIXTURES

pytestmark = pytest.mark.device
MLP = Bundle.open(FIXTURES / "mlp.edgefl")
Opened = Callable[..., ExampleStore]


class Clock:
    """Seconds since the epoch, as told."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def marked(number: int, label: int = 0) -> tuple[np.ndarray, int]:
    """An example whose bytes are found wherever they are."""
    return np.full(6, 1000.0 + number, np.float32), label


def needle(number: int) -> bytes:
    return marked(number)[0].tobytes()


def numbers(examples: Examples) -> list[int]:
    return [round(float(row[0]) - 1000) for row in examples.x["x"]]


@pytest.fixture
def store(tmp_path: Path, opened: Opened) -> ExampleStore:
    return opened(tmp_path / "s.db", MLP)


def test_what_was_added_is_what_is_trained_on(store: ExampleStore) -> None:
    for i in range(5):
        assert store.add(*marked(i, i % 3), weight=i + 1, key=f"walk-{i}")

    taken = store.take(seed=1)

    assert numbers(taken) == [0, 1, 2, 3, 4]
    assert taken.y["y"].tolist() == [0, 1, 2, 0, 1] and taken.y["y"].dtype == np.int32
    assert taken.weight.tolist() == [1, 2, 3, 4, 5]
    assert Trainer(MLP, "numpy").fit(taken.x, taken.y, sample_weight=taken.weight).examples == 5
    assert (len(store), store.ever_added(), store.info().labels) == (5, 5, {"0": 2, "1": 2, "2": 1})


def test_an_example_twice_counts_once(store: ExampleStore) -> None:
    assert store.add(*marked(1)) and not store.add(*marked(1)) and store.add(*marked(1, label=2))
    assert store.extend(Examples(np.stack([marked(1)[0], marked(2)[0]]), np.array([0, 0]))) == 1

    assert (len(store), store.ever_added()) == (3, 3)


def test_what_does_not_fit_is_refused_and_nothing_kept(store: ExampleStore) -> None:
    with pytest.raises(LabelRange, match="holds label 3"):
        store.add(marked(0)[0], 3)
    with pytest.raises(DataShape, match=r"has shape \(1, 5\)"):
        store.add(np.zeros(5), 0)
    with pytest.raises(OptionError, match="the key has 201 characters"):
        store.add(*marked(0), key="k" * 201)

    assert len(store) == 0
    with pytest.raises(DataError, match="holds no examples"):
        store.take()


def test_a_store_opens_again_without_the_bundle(store: ExampleStore, tmp_path: Path) -> None:
    store.add(*marked(7))
    store.close()

    with ExampleStore(tmp_path / "s.db") as again:
        assert numbers(again.take()) == [7] and again.layout == Layout.of(MLP)
    with pytest.raises(StoreError, match="there is no store"):
        ExampleStore(tmp_path / "other.db")


def test_a_file_that_is_no_store_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *given, **named: made.append(connect(*given, **named)) or made[-1]
    )
    (tmp_path / "text").write_text("no database, but long enough to be looked at" * 9)

    with pytest.raises(StoreError, match="cannot be used: file is not a database"):
        ExampleStore(tmp_path / "text", MLP)

    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        made[0].execute("SELECT 1")


def test_a_store_is_for_one_kind_of_example(store: ExampleStore, tmp_path: Path) -> None:
    other = Layout((Layout.of(MLP).inputs[0].__class__("x", (1, 7), "float32"),), Layout.of(MLP).heads)

    with pytest.raises(StoreError, match=r"holds x float32\[6\], y int32; the model wants x float32\[7\]"):
        ExampleStore(tmp_path / "s.db", other)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (StoreOptions(keep_examples=4), [6, 7, 8, 9]),
        (StoreOptions(keep_bytes=5 * 32), [5, 6, 7, 8, 9]),
        (StoreOptions(keep_per_label=2), [6, 7, 8, 9]),
        (StoreOptions(keep_days=3), [6, 7, 8, 9]),
    ],
)
def test_the_oldest_make_room(tmp_path: Path, opened: Opened, limits: StoreOptions, kept: list[int]) -> None:
    clock = Clock()
    store = opened(tmp_path / "s.db", MLP, limits, clock=clock)
    for i in range(10):
        clock.now += 86_400
        store.add(*marked(i, i % 2))

    assert numbers(store.take()) == kept and store.ever_added() == 10
    assert store.info().examples == len(store) == len(kept)
    assert all((needle(i) in (tmp_path / "s.db").read_bytes()) == (i in kept) for i in range(10))
    assert store.added_since(clock.now - 86_400) == 2
    with ExampleStore(tmp_path / "s.db") as again:
        assert again.limits == limits


def test_age_counts_without_anybody_adding(tmp_path: Path, opened: Opened) -> None:
    clock = Clock()
    store = opened(tmp_path / "s.db", MLP, StoreOptions(keep_days=1), clock=clock)
    store.add(*marked(0))
    clock.now += 86_401

    assert len(store) == 0 and store.info().labels == {}
    with pytest.raises(DataError):
        store.take()
    assert needle(0) not in (tmp_path / "s.db").read_bytes()


def test_one_example_larger_than_all_room(tmp_path: Path, opened: Opened) -> None:
    with pytest.raises(DataError, match="one example has 32 bytes, the store keeps 20"):
        opened(tmp_path / "s.db", MLP, StoreOptions(keep_bytes=20)).add(*marked(0))


def test_forgetting_leaves_no_byte(store: ExampleStore, tmp_path: Path) -> None:
    for i in range(200):
        store.add(*marked(i, i % 3), key="a" if i < 100 else "b")
    full = (tmp_path / "s.db").stat().st_size

    assert store.forget(key="a", label=1) == 33
    assert store.forget(where=lambda one: one.tensors["x"][0] == 1150) == 1
    moment = time.time()
    store.add(*marked(300))
    assert store.forget(before=moment, label=0, where=lambda one: one.key == "b") == 32

    left = {*numbers(store.take())}
    assert 300 in left and len(left) == 201 - 66
    for file in tmp_path.iterdir():
        data = file.read_bytes()
        assert all((needle(i) in data) == (i in left) for i in [*range(200), 300])
    assert store.forget(before=math.inf) == len(left)
    assert (tmp_path / "s.db").stat().st_size < full
    with pytest.raises(OptionError, match="say what to forget"):
        store.forget()


def test_forgetting_reaches_features_and_checkpoints(store: ExampleStore, tmp_path: Path) -> None:
    home = tmp_path / "watch"
    cache, checkpoint = FeatureCache(home / "features"), home / "checkpoint"
    store.derives(home / "features", checkpoint)
    for i in range(6):
        store.add(*marked(i), key=str(i))
    made = store.take()
    cache.through("ab" * 16, made.x, lambda inputs: {"h": inputs["x"] * 2})
    checkpoint.mkdir()
    (checkpoint / "weights").write_bytes(b"learnt from all")
    assert not store.forgotten_since()

    with ExampleStore(tmp_path / "s.db") as app:
        app.forget(key="3")

    assert store.forgotten_since() and not checkpoint.exists()
    digests = example_digests(made.x)
    kept, _ = cache._find("ab" * 16, set(digests))
    assert set(kept) == set(digests) - {digests[3]}
    assert (marked(3)[0] * 2).tobytes() not in b"".join(f.read_bytes() for f in home.rglob("*.features"))

    # The training that was under way wrote once more before it stopped.
    cache.through("ab" * 16, made.x, lambda inputs: {"h": inputs["x"] * 2})
    checkpoint.mkdir()
    assert numbers(store.take()) == [0, 1, 2, 4, 5]
    assert not store.forgotten_since() and not checkpoint.exists()
    assert digests[3] not in cache._find("ab" * 16, set(digests))[0]
    checkpoint.mkdir()
    store.take()
    assert checkpoint.exists(), "a checkpoint of what is still there stays"


def test_limits_reach_features_at_the_next_round(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path / "s.db", MLP, StoreOptions(keep_examples=2))
    store.derives(tmp_path / "features", None)
    cache = FeatureCache(tmp_path / "features")
    store.add(*marked(0))
    digest = example_digests(store.take().x)
    cache.through("ab" * 16, store.take().x, lambda inputs: {"h": inputs["x"]})
    store.add(*marked(1)), store.add(*marked(2))

    assert numbers(store.take()) == [1, 2] and not store.forgotten_since()

    assert not cache._find("ab" * 16, set(digest))[0]


def test_memory_bounds_what_a_round_takes(tmp_path: Path, opened: Opened) -> None:
    store = opened(tmp_path / "s.db", MLP, memory_bytes=10 * 32)
    store.extend(Examples(np.stack([marked(i)[0] for i in range(100)]), np.zeros(100, int)))

    draws = [numbers(store.take(seed)) for seed in (1, 1, 2)]

    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 10 == len(set(draws[2]))


def test_a_pass_in_seeded_order(store: ExampleStore) -> None:
    store.extend(Examples(np.stack([marked(i)[0] for i in range(20)]), np.zeros(20, int)))

    passes = [[numbers(batch) for batch in store.batches(8, seed)] for seed in (1, 1, 2)]

    assert [len(batch) for batch in passes[0]] == [8, 8, 4]
    assert passes[0] == passes[1] != passes[2] and {n for batch in passes[2] for n in batch} == {*range(20)}


@settings(max_examples=10)
@given(st.lists(st.tuples(st.sampled_from("arf"), st.integers(0, 7)), max_size=30))
def test_it_is_a_queue_of_different_examples(tmp_path_factory: pytest.TempPathFactory, steps) -> None:
    with ExampleStore(tmp_path_factory.mktemp("s") / "s.db", MLP, StoreOptions(keep_examples=4)) as store:
        model: list[int] = []
        for what, number in steps:
            if what == "a":
                assert store.add(*marked(number), key=str(number)) == (number not in model)
                model = (model if number in model else [*model, number])[-4:]
            elif what == "f":
                assert store.forget(key=str(number)) == model.count(number)
                model = [n for n in model if n != number]
            assert len(store) == len(model)
            if model:
                assert numbers(store.take()) == model


ADD = """
import sys, numpy as np
from edgefl.runtime.store import ExampleStore
store, first = ExampleStore(sys.argv[1]), int(sys.argv[2])
for i in range(first, first + 10_000):
    store.add(np.full(6, 1000.0 + i, np.float32), i % 3)
    print(i, flush=True)
"""


def test_killed_while_adding(store: ExampleStore, tmp_path: Path) -> None:
    told: list[int] = []
    for start in (0, 20_000, 40_000):
        process = subprocess.Popen(
            [sys.executable, "-c", ADD, tmp_path / "s.db", str(start)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        told += [int(process.stdout.readline()) for _ in range(10)]
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()

    kept = numbers(store.take())

    assert set(told) <= set(kept) and len(kept) <= len(told) + 3
    assert store.ever_added() == len(store) == len(kept)
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_two_processes_and_threads_at_once(store: ExampleStore, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", ADD, tmp_path / "s.db", "0"], stdout=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    process.stdout.readline()
    threads = [
        threading.Thread(target=lambda n=n: [store.add(*marked(100_000 + 100 * n + i)) for i in range(10)])
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for _ in range(5):
        store.take()
    for thread in threads:
        thread.join()
    process.kill()
    process.stdout.close()
    process.wait()

    kept = numbers(store.take())

    assert sum(n >= 100_000 for n in kept) == 30 and len(kept) == len(set(kept)) > 30


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_nobody_else_reads_it(store: ExampleStore, tmp_path: Path) -> None:
    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0
