# SPDX-License-Identifier: Apache-2.0
"""Buffers that take late updates (FedBuff): they count, weighed by how far they are behind, and nothing is
lost or counted twice, whatever restarts come between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.delta import encode
from edgefl.errors import Refused
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.tensorfile import read_tensors
from edgefl.wire import CheckIn, Training
from tests.server.test_coordinator import Clock

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
SCHEMA = Bundle.open(MODEL).schema()


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def make(request, tmp_path):
    """A function that makes a coordinator; called again it goes on from the same storage."""
    database = request.getfixturevalue("postgres")() if request.param == "postgres" else tmp_path / "x.db"
    clock, kept, opened = Clock(), MemoryStore() if request.param == "memory" else None, []

    def start(**options):
        for old in opened:
            old.close()
        defaults = {
            "goal": 2,
            "rounds": 9,
            "surplus": 1.0,
            "staleness": 2,
            "downlink": 0.0,
            "norm_bound": 0.0,
        }
        training = Training.of(mode="float32")
        settings = Settings(bundle=MODEL, database=database, training=training, **{**defaults, **options})
        opened.append(Coordinator(settings, store=kept, clock=clock))
        return opened[-1]

    yield start
    opened[-1].close()


def vector(seed):
    return np.random.default_rng(seed).normal(size=SCHEMA.size).astype(np.float32)


def frame(seed, version):
    return encode(vector(seed), schema_id=SCHEMA.id, base_version=version, mode="float32").frame


def place(server, name):
    return server.check_in(CheckIn(name, SCHEMA.id.hex(), "numpy 1", 10)).task


def send(server, task, seed):
    answer = server.accept(task.round, task.assignment, frame(seed, task.base_version))
    server.tick()
    return answer


def flat(server, version):
    return SCHEMA.flatten(read_tensors(server.shelf.parameters(version))).astype(np.float64)


def test_a_late_update_counts_less_in_the_buffer_of_the_day(make):
    server = make()
    a, b, late = (place(server, name) for name in "abc")
    send(server, a, 1), send(server, b, 2)
    assert server.round_number == 2

    server = make()
    assert not send(server, late, 3).duplicate
    server = make()
    assert send(server, late, 3).duplicate
    d = place(server, "d")
    assert (d.round, d.base_version) == (2, 1)
    send(server, d, 4)

    assert server.round_number == 3
    expected = (vector(3) / np.sqrt(2) + vector(4)) / 2
    np.testing.assert_allclose(flat(server, 2) - flat(server, 1), expected, rtol=1e-4, atol=1e-5)
    assert [info.updates for info in server.rounds()[:2]] == [2, 2]
    assert {p.device: p.state for p in server.participants(1).participants} == dict.fromkeys(
        "abc", "accepted"
    )
    # Sent once more after its buffer was closed, it still counts once.
    assert send(server, late, 3).duplicate


def test_two_versions_behind_count_by_the_root_of_three(make):
    server = make()
    late = place(server, "late")
    for number in (1, 2):
        for name in "ab":
            send(server, place(server, name), 10 * number + ord(name))
    server = make()
    send(server, late, 3)
    send(server, place(server, "a"), 4)

    expected = (vector(3) / np.sqrt(3) + vector(4)) / 2
    np.testing.assert_allclose(flat(server, 3) - flat(server, 2), expected, rtol=1e-4, atol=1e-5)


def test_what_is_older_than_the_staleness_is_refused(make):
    server = make(staleness=1)
    late = place(server, "late")
    for number in (1, 2):
        for name in "ab":
            send(server, place(server, name), 10 * number + ord(name))
    server = make(staleness=1)

    with pytest.raises(Refused, match="round-closed"):
        send(server, late, 3)


def test_synchronous_rounds_refuse_the_late(make):
    server = make(staleness=0)
    a, b, late = (place(server, name) for name in "abc")
    send(server, a, 1), send(server, b, 2)

    with pytest.raises(Refused, match="round-closed"):
        send(server, late, 3)


def test_devices_at_work_at_once_are_limited(make):
    server = make()
    tasks = [place(server, name) for name in "abcde"]
    assert [task is not None for task in tasks] == [True] * 4 + [False]

    send(server, tasks[0], 1), send(server, tasks[1], 2)
    server = make()
    assert server.round_number == 2
    # c and d are still at work, so two more may begin.
    begun = [place(server, name) for name in "efg"]
    assert [task is not None for task in begun] == [True, True, False]
    send(server, tasks[2], 3)
    assert place(server, "g") is not None
    server.give_back(1, tasks[3].assignment, "too warm")
    assert place(make(), "h") is not None


def test_who_asks_anew_gives_up_its_late_place(make):
    server = make()
    a, b, late = (place(server, name) for name in "abc")
    send(server, a, 1), send(server, b, 2)
    anew = place(server, "c")
    assert (anew.round, anew.base_version) == (2, 1)
    server = make()

    with pytest.raises(Refused, match="round-closed"):
        send(server, late, 3)
    assert not send(server, anew, 4).duplicate


def test_while_a_buffer_is_closed_the_late_are_asked_to_wait(make):
    server = make()
    a, b, late = (place(server, name) for name in "abc")
    for seed, task in enumerate((a, b)):
        server.accept(1, task.assignment, frame(seed, 0))

    with pytest.raises(Refused) as caught:
        server.accept(1, late.assignment, frame(3, 0))
    assert caught.value.status == 503 and not server.rounds()[0].refused
    server.tick()
    assert server.accept(1, late.assignment, frame(3, 0)).accepted


def test_with_devices_that_are_equally_fast_it_is_the_synchronous_federation(make, tmp_path):
    def run(server):
        for number in range(1, 4):
            tasks = [place(server, name) for name in "ab"]
            for seed, task in enumerate(tasks):
                server.accept(number, task.assignment, frame(10 * number + seed, task.base_version))
            server.tick()
        return flat(server, 3)

    options = {"surplus": 0.0, "norm_bound": 4.0, "downlink": 0.03}
    buffered = run(make(**options))
    settings = Settings(
        bundle=MODEL, database=tmp_path / "other.db", goal=2, rounds=9, training=Training.of(mode="float32"),
        surplus=0.0,
    )  # fmt: skip
    synchronous = Coordinator(settings, clock=Clock())
    expected = run(synchronous)
    synchronous.close()

    np.testing.assert_array_equal(buffered, expected)
