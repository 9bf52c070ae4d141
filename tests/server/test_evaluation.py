# SPDX-License-Identifier: Apache-2.0
"""Devices tell how good a version is: who is asked, what counts, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgefl.errors import Refused
from edgefl.runtime.administration import Administration
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.evaluation.state import Answer, found
from edgefl.server_stub.settings import Settings
from edgefl.wire import Evaluated, EvaluationTask, Failure, Training
from tests.server.conftest import Server


def asked(remote: Any, hello: Any, device: str, held_out: int = 5) -> EvaluationTask:
    task = remote.check_in(replace(hello(device), held_out=held_out)).evaluation
    assert task is not None
    return task


def test_answers_count_once_and_survive_a_kill(serve, hello):
    server = serve(evaluate_every=1, evaluators=3, rounds=1)
    remote = server.remote()
    answers = {"a": Evaluated(10, 1.5, 0.5), "b": Evaluated(30, 0.5, 0.75)}
    tasks = {name: asked(remote, hello, name) for name in answers}

    told = [remote.evaluated(0, tasks[n].assignment, answers[n]).duplicate for n in ("a", "a", "b")]
    server.kill()
    server.start()
    again = server.remote()
    told.append(again.evaluated(0, tasks["b"].assignment, answers["b"]).duplicate)
    now = again.status().evaluation

    assert told == [False, True, False, True]
    assert (now.version, now.state, now.devices, now.wanted, now.examples) == (0, "open", 2, 3, 40)
    assert (now.loss, now.median_loss, now.accuracy) == (0.75, 1.0, 0.6875)
    assert again.evaluations() == (now,)
    # Who has answered gets the work that there is.
    answer = again.check_in(replace(hello("a"), held_out=5))
    assert answer.evaluation is None and answer.task is not None


def test_whoever_is_to_measure_is_asked_before_it_trains_and_gets_the_same_place_again(serve, hello):
    remote = serve(evaluate_every=1, evaluators=1).remote()

    nothing_held_out = remote.check_in(hello("none"))
    first = asked(remote, hello, "a")
    again = asked(remote, hello, "a")
    too_late = remote.check_in(replace(hello("b"), held_out=5))

    assert nothing_held_out.task is not None and nothing_held_out.evaluation is None
    assert (again.assignment, again.base_version) == (first.assignment, 0)
    assert too_late.task is not None and too_late.evaluation is None


IMPOSSIBLE = {
    b'{"examples": 5, "loss": NaN}': (400, "malformed-request"),
    b'{"examples": 5, "loss": 1e31}': (400, "malformed-request"),
    b'{"examples": 5, "loss": 1.0, "accuracy": 1.01}': (400, "malformed-request"),
    b'{"examples": 5}': (400, "malformed-request"),
    b'{"examples": 0, "loss": 1.0}': (400, "malformed-request"),
    b'{"examples": -1, "loss": 1.0}': (400, "malformed-request"),
    b'{"examples": 101, "loss": 1.0}': (422, "too-many-examples"),
}


def test_what_cannot_be_is_refused_and_leaves_the_place(serve, hello):
    server = serve(evaluate_every=1, max_examples=100)
    remote, transport = server.remote(), server.transport()
    task = asked(remote, hello, "a")
    assert task.max_examples == 100

    told = {}
    for body in IMPOSSIBLE:
        refused = transport.request("PUT", f"/v1/evaluations/0/{task.assignment}", body, limit=1 << 16)
        told[body] = refused.status, Failure.from_bytes(refused.body).reason

    assert told == IMPOSSIBLE
    assert remote.status().evaluation.devices == 0
    assert not remote.evaluated(0, task.assignment, Evaluated(100, 1.0)).duplicate


def test_strangers_double_answers_and_unknown_versions_are_refused(serve, hello):
    remote = serve(evaluate_every=1).remote()
    task = asked(remote, hello, "a")
    remote.evaluated(0, task.assignment, Evaluated(5, 1.0))
    reasons = []

    for version, assignment, loss in (
        (0, task.assignment, 2.0),
        (0, "f" * 32, 1.0),
        (9, task.assignment, 1.0),
    ):
        with pytest.raises(Refused) as refused:
            remote.evaluated(version, assignment, Evaluated(5, loss))
        reasons.append(refused.value.reason)

    assert reasons == ["already-sent-different", "unknown-assignment", "unknown-evaluation"]
    assert remote.status().evaluation.loss == 1.0


@pytest.fixture
def desk(tmp_path: Path):
    """A coordinator on a clock that the test moves, with two seats and 60 seconds per version."""
    now = [1000.0]
    settings = Settings(
        Path(__file__).parent.parent / "fixtures" / "mlp.edgefl",
        tmp_path / "rounds.db",
        goal=1,
        rounds=3,
        evaluate_every=2,
        evaluators=2,
        evaluate_deadline_s=60.0,
        training=Training.of(density=0.2),
    )
    coordinator = Coordinator(settings, clock=lambda: now[0])
    yield coordinator, now
    coordinator.close()


def test_another_devices_place_is_unknown_and_nothing_counts_after_the_deadline(desk, hello):
    coordinator, now = desk
    tasks = [coordinator.check_in(replace(hello(n), held_out=5)).evaluation for n in "ab"]
    accept = coordinator.evaluations.accept
    with pytest.raises(Refused, match="no assignment"):
        accept(0, tasks[0].assignment, Evaluated(5, 1.0), "b")

    now[0] += 59.0
    accept(0, tasks[0].assignment, Evaluated(5, 1.0), "a")
    now[0] += 1.0
    with pytest.raises(Refused, match="has been measured"):
        accept(0, tasks[1].assignment, Evaluated(5, 9.0), "b")
    coordinator.check_in(hello("c"))

    (closed,) = coordinator.evaluations.infos()
    assert (closed.state, closed.devices, closed.loss, closed.until) == ("closed", 1, 1.0, 1060.0)


def test_who_can_measure_nothing_makes_room(desk, hello):
    coordinator, _ = desk
    tasks = {n: coordinator.check_in(replace(hello(n), held_out=5)).evaluation for n in "abc"}
    assert tasks["c"] is None

    coordinator.evaluations.accept(0, tasks["a"].assignment, Evaluated())
    again = coordinator.check_in(replace(hello("a"), held_out=5)).evaluation
    third = coordinator.check_in(replace(hello("d"), held_out=5)).evaluation

    assert again is None and third is not None
    assert coordinator.evaluations.infos()[0].devices == 0


def test_versions_in_between_are_not_measured_and_the_last_one_is(desk, hello, make_frame):
    coordinator, _ = desk
    for name, version in zip("xyz", range(3), strict=True):
        task = coordinator.check_in(hello(name)).task
        coordinator.accept(task.round, task.assignment, make_frame(version, version))
        coordinator.tick()
        late = coordinator.check_in(replace(hello(f"late-{name}"), held_out=5))
        # A version that is not the newest any more is measured by those who have it, and by nobody new.
        assert (late.evaluation is not None) == (version > 0)

    assert [info.version for info in coordinator.evaluations.infos()] == [0, 2, 3]
    assert coordinator.check_in(hello("nobody")).finished


def test_numbers_of_single_devices_are_forgotten_as_an_evaluation_closes(desk, hello, tmp_path):
    import sqlite3

    coordinator, _ = desk
    for name, loss in (("a", 1.0), ("b", 3.0)):
        task = coordinator.check_in(replace(hello(name), held_out=5)).evaluation
        coordinator.evaluations.accept(0, task.assignment, Evaluated(5, loss, 0.5))

    with sqlite3.connect(tmp_path / "rounds.db") as db:
        kept = db.execute("select loss, accuracy from evaluators").fetchall()
        together = db.execute("select devices, examples, loss, accuracy from evaluations").fetchall()
    db.close()
    assert kept == [(None, None)] * 2 and together == [(2, 10, 2.0, 0.5)]


def test_answers_amount_to_the_same_in_any_order():
    answers = [Answer(7, 0.1, 0.3), Answer(1, 1e16, None), Answer(1, -1e16, 0.9), Answer(3, 0.7, 1 / 3)]

    assert len({found(order) for order in itertools.permutations(answers)}) == 1
    assert found([]).loss is None and found(answers).devices == 4


def test_the_last_version_is_measured_where_the_last_round_is_abandoned(tmp_path, hello):
    now = [1000.0]
    settings = Settings(
        Path(__file__).parent.parent / "fixtures" / "mlp.edgefl",
        tmp_path / "rounds.db",
        rounds=1,
        extensions=0,
        deadline_s=10.0,
        evaluate_every=5,
    )
    coordinator = Coordinator(settings, clock=lambda: now[0])

    now[0] += 11.0
    coordinator.tick()
    answer = coordinator.check_in(replace(hello("a"), held_out=5))

    assert coordinator.rounds()[0].state == "abandoned"
    assert answer.evaluation is not None and coordinator.check_in(hello("b")).finished
    coordinator.close()


@pytest.mark.slow
def test_two_servers_give_out_and_take_the_same_places(postgres, tmp_path, hello):
    """What one server gave out the other takes; both know when nothing is to be given any more."""
    database, remotes, servers = postgres(), [], []
    for name in "ab":
        (tmp_path / name).mkdir()
        options = {
            "database": database,
            "goal": 4,
            "evaluate_every": 1,
            "evaluators": 2,
            "long_poll_s": 0.0,
            "training": {"density": 0.2},
        }
        servers.append(Server(tmp_path / name, options).start())
        remotes.append(servers[-1].remote())
    try:
        first, second = remotes
        tasks = [asked(first, hello, "x"), asked(second, hello, "y")]
        late = second.check_in(replace(hello("z"), held_out=5))
        first.evaluated(0, tasks[1].assignment, Evaluated(5, 1.0))
        second.evaluated(0, tasks[0].assignment, Evaluated(5, 3.0))
        told = [remote.status().evaluation for remote in remotes]
        Administration(servers[0].transport()).hold("both of them")
        held = [remote.status().held for remote in remotes]
    finally:
        for server in servers:
            server.stop()

    assert late.evaluation is None and late.task is not None
    assert told[0] == told[1] and (told[0].state, told[0].devices, told[0].loss) == ("closed", 2, 2.0)
    assert held == ["both of them"] * 2
