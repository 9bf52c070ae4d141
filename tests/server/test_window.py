# SPDX-License-Identifier: Apache-2.0
"""Places drawn among all who check in while a window is open, on the server with a clock of its own."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest

from edgefl.bundle import Bundle
from edgefl.errors import OptionError
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.wire import CheckIn, Training
from tests.server.conftest import restarting
from tests.server.test_coordinator import Clock

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
SCHEMA = Bundle.open(MODEL).schema().id.hex()
FLEET = [f"d{i}" for i in range(6)]


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def make(request, tmp_path):
    """A function that makes a coordinator on the same storage, and its clock."""
    given = {
        "training": Training.of(density=0.2),
        "goal": 2,
        "rounds": 5,
        "surplus": 0.0,
        "selection_window_s": 10.0,
    }
    yield from restarting(request, tmp_path, Clock(), given)


def ask(server, names, examples=10, labels="", engine="numpy 1"):
    """The names of those that got work."""
    messages = [CheckIn(name, SCHEMA, engine, examples, labels) for name in names]
    return [m.device for m in messages if server.check_in(m).task is not None]


def test_nobody_gets_a_place_before_the_window_ends(make, make_frame):
    server, clock = make()
    assert ask(server, FLEET) == [] and server.due() == 10 and server.offer == (1, False)
    answer = server.check_in(CheckIn("d0", SCHEMA, "numpy 1", 10))
    assert answer.retry_after_s == 10

    clock.now += 10
    server.tick()

    assert server.offer == (1, True) and server.due() == 290
    drawn = ask(server, FLEET)
    assert len(drawn) == 2 and ask(server, FLEET) == drawn
    assert [p.device for p in server.participants(1).participants] == drawn
    for name in drawn:
        task = server.check_in(CheckIn(name, SCHEMA, "numpy 1", 10)).task
        server.accept(1, task.assignment, make_frame(int(name[1:])))
    server.tick()
    assert server.round_number == 2 and server.offer == (2, False)


def test_a_restart_forgets_neither_candidates_nor_the_draw(make):
    server, clock = make()
    ask(server, FLEET)
    server, _ = make()
    clock.now += 10

    drawn = ask(server, FLEET)
    assert len(drawn) == 2
    server, _ = make()
    assert ask(server, FLEET) == drawn


def test_the_draw_does_not_depend_on_who_came_first(make):
    server, clock = make()
    ask(server, FLEET[::-1])
    clock.now += 10
    drawn = ask(server, FLEET)

    counts = Counter()
    for seed in range(40):
        options = {"goal": 2, "surplus": 0.0, "selection_window_s": 10.0, "training": Training.of(seed=seed)}
        later = Clock()
        other = Coordinator(Settings(bundle=MODEL, database="", **options), store=MemoryStore(), clock=later)
        ask(other, FLEET)
        later.now += 10
        found = ask(other, FLEET)
        counts.update(found)
        if seed == 0:
            assert found == drawn
    assert set(counts) == set(FLEET) and max(counts.values()) < 30


def test_with_nobody_there_the_first_to_come_is_served(make):
    server, clock = make()
    clock.now += 20

    assert ask(server, FLEET) == ["d0", "d1"]


def test_fewer_candidates_than_places_leave_room_for_others(make):
    server, clock = make()
    ask(server, ["d5"])
    clock.now += 10

    assert ask(server, FLEET) == ["d0", "d5"]


def test_without_a_window_the_first_to_come_are_served_at_once(make):
    server, _ = make(selection_window_s=0.0)

    assert ask(server, FLEET) == ["d0", "d1"] and server.offer is None


def test_those_with_more_examples_are_drawn_more_often(make):
    server, clock = make(selection="examples")
    ask(server, FLEET[:4], examples=1)
    ask(server, FLEET[4:], examples=90_000)
    clock.now += 10

    assert ask(server, FLEET) == ["d4", "d5"]


def test_who_waited_longest_is_drawn(make, make_frame):
    server, clock = make(selection="waiting", goal=3)
    seen = []
    for number in (1, 2):
        ask(server, FLEET)
        clock.now += 10
        drawn = ask(server, FLEET)
        for name in drawn:
            task = server.check_in(CheckIn(name, SCHEMA, "numpy 1", 10)).task
            server.accept(number, task.assignment, make_frame(number, task.base_version))
        server.tick()
        seen += drawn

    assert sorted(seen) == FLEET


def test_only_devices_with_the_labels_asked_for_take_part(make):
    server, _ = make(selection_window_s=0.0, only="app=1.4,target=tflite", goal=3)

    assert ask(server, ["d0"]) == ask(server, ["d1"], labels="app=1.4") == []
    assert ask(server, ["d2"], labels="app=1.3", engine="tflite litert") == []
    assert ask(server, ["d3"], labels="app=1.4,beta=yes", engine="tflite litert") == ["d3"]


def test_labels_count_in_the_draw_too(make):
    server, clock = make(only="app=2")
    ask(server, FLEET[:5])
    ask(server, FLEET[5:], labels="app=2")
    clock.now += 10

    assert ask(server, FLEET[5:], labels="app=2") == ["d5"]
    assert len(server.participants(1).participants) == 1


@pytest.mark.parametrize("only", ["app", "app=1 4", "=x", "app=1,", ",".join(f"a{i}=1" for i in range(9))])
def test_what_is_no_label_is_refused(only):
    with pytest.raises(OptionError, match="only="):
        Settings(bundle=MODEL, database="", only=only)


def test_patience_ends_with_what_there_is(make, make_frame):
    server, clock = make(selection_window_s=0.0, goal=3, minimum=3, deadline_s=60.0, extensions=1)
    ask(server, FLEET[:1])
    task = server.check_in(CheckIn("d0", SCHEMA, "numpy 1", 10)).task
    server.accept(1, task.assignment, make_frame(1))
    for expected in (1, 2):
        clock.now += 60
        server.tick()
        assert server.round_number == expected
    assert server.rounds()[0].updates == 1


def test_devices_that_wait_are_told_when_places_are_drawn(serve):
    server = serve(goal=2, surplus=0.0, selection_window_s=0.5, long_poll_s=20.0)

    def held(name):
        return server.remote().check_in(CheckIn(name, SCHEMA, "numpy 1", 10)).task

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(held, name) for name in FLEET[:4]]
        served = [w.result(15) for w in itertools.islice(as_completed(waiting), 2)]
        # The others are let go with the server.
        server.terminate()
    assert all(task is not None for task in served)
