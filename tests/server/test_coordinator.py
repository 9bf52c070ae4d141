# SPDX-License-Identifier: Apache-2.0
"""The server without HTTP, with a clock of its own: restarts at every awkward moment."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle
from edgefl.errors import OptionError, Refused, StoreError
from edgefl.parameters import Parameter
from edgefl.server_stub import aggregate, store
from edgefl.server_stub.checks import Checks
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.memory import MemoryStore
from edgefl.server_stub.settings import Settings
from edgefl.tensorfile import read_tensors
from edgefl.wire import Training
from tests.fixtures import minimal

on_disk = pytest.mark.parametrize("storage", ["sqlite", "postgres"])
on_sqlite = pytest.mark.parametrize("storage", ["sqlite"])
MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def storage(request) -> str:
    """Where the rounds are kept; what the disk does is `on_disk` alone."""
    return request.param


@pytest.fixture
def start(tmp_path, clock, storage, request):
    """A context with a coordinator; a second one continues on the same database."""
    database = request.getfixturevalue("postgres")() if storage == "postgres" else tmp_path / "rounds.db"
    kept = MemoryStore() if storage == "memory" else None

    @contextmanager
    def make(**options):
        defaults = {
            "bundle": MODEL,
            "goal": 2,
            "rounds": 3,
            "training": Training.of(density=0.2),
            "downlink": 0.0,
        }
        settings = Settings(database=database, **{**defaults, **options})
        coordinator = Coordinator(settings, store=kept, clock=clock)
        try:
            yield coordinator
        finally:
            coordinator.close()

    return make


def flat(coordinator, version):
    return coordinator.bundle.schema().flatten(read_tensors(coordinator.shelf.parameters(version)))


def test_a_round_that_nobody_answers_is_abandoned(start, clock, bundle, make_frame, hello, caplog):
    with start(goal=1, deadline_s=60.0, extensions=1, rounds=3) as server:
        late = server.check_in(hello("a")).task
        clock.now += 60
        server.tick()
        assert server.rounds()[0].state == "open"
        clock.now += 60
        server.tick()
        assert [(r.state, r.version, r.extensions) for r in server.rounds()] == [
            ("abandoned", None, 1),
            ("open", None, 0),
        ]
        assert server.rounds()[0].closed_at == clock.now and "round 1 abandoned" in caplog.text
        assert server.participants(1).participants[0].state == "absent"
        with pytest.raises(Refused, match="round-closed"):
            server.accept(1, late.assignment, make_frame(1))
    with start(goal=1, deadline_s=60.0, extensions=1, rounds=3) as again:
        status = again.status()
        assert (status.rounds_done, status.version, status.round.round) == (1, 0, 2)
        task = again.check_in(hello("a")).task
        assert (task.round, task.base_version) == (2, 0)
        again.accept(2, task.assignment, make_frame(1))
        again.tick()
        assert [(r.state, r.version) for r in again.rounds()][:2] == [("abandoned", None), ("closed", 1)]
        clock.now += 1000
        again.tick()
        clock.now += 1000
        again.tick()
        assert again.status().finished and again.status().version == 1


def test_update_survives_a_restart_and_the_round_goes_on(start, bundle, make_frame, hello):
    frames = [make_frame(1), make_frame(2)]
    with start() as first:
        a = first.check_in(hello("a")).task
        b = first.check_in(hello("b")).task
        first.accept(1, a.assignment, frames[0])

    with start() as second:
        assert second.accept(1, a.assignment, frames[0]).duplicate
        assert not second.accept(1, b.assignment, frames[1]).duplicate
        second.tick()
        expected = bundle.schema().flatten(aggregate(bundle, frames).parameters())

        np.testing.assert_array_equal(flat(second, 1), expected)


def test_federation_is_named_once_and_every_task_says_so(start, hello):
    with start() as first:
        name = first.check_in(hello("a")).task.federation
        assert len(name) == 16 and first.status().federation == name
    with start() as second:
        assert second.check_in(hello("b")).task.federation == name

    assert MemoryStore().federation() != name


def test_round_filled_just_before_a_crash_is_closed_after_it(start, make_frame, hello):
    with start(goal=1) as first:
        a = first.check_in(hello("a")).task
        first.accept(1, a.assignment, make_frame(1))

    with start(goal=1) as second:
        assert second.due() == 0.0
        second.tick()

        assert second.round_number == 2
        assert second.accept(1, a.assignment, make_frame(1)).duplicate


@on_disk
def test_crash_while_closing_leaves_the_round_as_it_was(start, make_frame, hello, monkeypatch):
    def crash(*_):
        raise RuntimeError("power failure")

    with start(goal=1) as first:
        a = first.check_in(hello("a")).task
        first.accept(1, a.assignment, make_frame(1))
        with monkeypatch.context() as patch:
            patch.setattr(store, "insert_round", crash)
            with pytest.raises(RuntimeError):
                first.tick()

    with start(goal=1) as second:
        assert second.status().version == 0
        second.tick()

        assert [r.state for r in second.rounds()] == ["closed", "open"]
        assert second.status().version == 1


@on_disk
def test_crash_while_storing_an_update_acknowledges_nothing(start, make_frame, hello, monkeypatch):
    def crash(*_):
        raise RuntimeError("disk full")

    with start(goal=1) as coordinator:
        a = coordinator.check_in(hello("a")).task
        with monkeypatch.context() as patch:
            patch.setattr(store, "add_traffic", crash)
            with pytest.raises(RuntimeError):
                coordinator.accept(1, a.assignment, make_frame(1))

        assert coordinator.rounds()[0].updates == 0
        assert not coordinator.accept(1, a.assignment, make_frame(1)).duplicate


def test_time_that_passed_while_down_counts(start, clock, make_frame, hello):
    with start(goal=2, minimum=1, deadline_s=60) as first:
        a = first.check_in(hello("a")).task
        first.accept(1, a.assignment, make_frame(1))

    clock.now += 61
    with start(goal=2, minimum=1, deadline_s=60) as second:
        second.tick()

        assert second.status().version == 1


def test_extension_survives_a_restart(start, clock, make_frame, hello):
    with start(goal=2, minimum=2, deadline_s=60) as first:
        a = first.check_in(hello("a")).task
        first.accept(1, a.assignment, make_frame(1))
        clock.now += 61
        first.tick()

    with start(goal=2, minimum=2, deadline_s=60) as second:
        info = second.rounds()[0]

    assert (info.extensions, info.updates, info.deadline) == (1, 1, clock.now + 60)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_restarts_change_no_bit_of_the_result(start, tmp_path, make_frame, hello, momentum):
    def run(restarting: bool) -> np.ndarray:
        (tmp_path / "rounds.db").unlink(missing_ok=True)
        options = {"goal": 1, "server_momentum": momentum, "server_lr": 0.7}
        for version in range(3):
            with start(**{**options, "rounds": version + 1}) as c:
                while not restarting and c.round_number is not None:
                    _one_round(c, make_frame, hello)
                if restarting:
                    _one_round(c, make_frame, hello)
        with start(**options) as c:
            return flat(c, 3)

    np.testing.assert_array_equal(run(restarting=True), run(restarting=False))


def _one_round(coordinator, make_frame, hello):
    task = coordinator.check_in(hello("a")).task
    coordinator.accept(task.round, task.assignment, make_frame(task.round, task.base_version))
    coordinator.tick()


def test_momentum_carries_over_rounds(start, make_frame, hello):
    with start(goal=1, rounds=2, server_momentum=0.5) as c:
        for number in (1, 2):
            task = c.check_in(hello("a")).task
            c.accept(number, task.assignment, make_frame(1, task.base_version))
            c.tick()
        base, one, two = flat(c, 0), flat(c, 1), flat(c, 2)

    np.testing.assert_allclose(two - one, 1.5 * (one - base), rtol=1e-4, atol=1e-6)


def test_momentum_may_be_switched_on_later(start, make_frame, hello):
    with start(goal=1, rounds=1) as first:
        _one_round(first, make_frame, hello)

    with start(goal=1, rounds=2, server_momentum=0.9) as second:
        _one_round(second, make_frame, hello)

        assert second.status().version == 2


def test_more_rounds_may_be_asked_for_later(start, make_frame, hello):
    with start(goal=1, rounds=1) as first:
        _one_round(first, make_frame, hello)
        assert first.check_in(hello("a")).finished

    with start(goal=1, rounds=2) as second:
        assert second.check_in(hello("a")).task.round == 2


@on_sqlite
def test_frames_are_kept_no_longer_than_needed(start, tmp_path, make_frame, hello):
    with start(goal=1) as c:
        _one_round(c, make_frame, hello)

    with sqlite3.connect(tmp_path / "rounds.db") as db:
        rows = db.execute("select frame, length(digest) from updates").fetchall()
    db.close()

    assert rows == [(None, 64)]


def test_update_decides_only_with_the_round_it_was_given_for(start, make_frame, hello):
    with start(goal=1, surplus=1.0) as c:
        a, b = c.check_in(hello("a")).task, c.check_in(hello("b")).task
        c.accept(1, a.assignment, make_frame(1))
        c.tick()

        with pytest.raises(Refused, match="unknown-assignment"):
            c.accept(2, b.assignment, make_frame(2, 1))
        with pytest.raises(Refused, match="round-closed"):
            c.accept(1, b.assignment, make_frame(2))


def test_loss_is_the_weighted_mean_of_what_devices_report(start, make_frame, hello):
    with start(goal=2) as c:
        a, b = c.check_in(hello("a", 10)).task, c.check_in(hello("b", 30)).task
        c.accept(1, a.assignment, make_frame(1, meta={"loss": 1.0}))
        c.accept(1, b.assignment, make_frame(2, meta={"loss": 2.0}))

        assert c.rounds()[0].loss == pytest.approx(1.75)


@pytest.mark.parametrize("meta", [{}, {"loss": "0.1"}, {"loss": None}, {"loss": True}, {"loss": 1e300}])
def test_odd_metadata_harms_nothing(start, make_frame, hello, meta):
    with start(goal=2) as c:
        a = c.check_in(hello("a")).task
        c.accept(1, a.assignment, make_frame(1, meta=meta))

        assert c.rounds()[0].loss is None


def test_sum_that_overflows_leaves_the_parameters_and_the_rounds_going(start, make_frame, hello):
    with start(goal=1, server_lr=1e300) as c:
        _one_round(c, make_frame, hello)

        np.testing.assert_array_equal(flat(c, 1), flat(c, 0))
        assert c.round_number == 2


def test_database_of_another_model_is_refused(start, tmp_path, bundle):
    with start():
        pass
    other = _renamed(bundle)

    with pytest.raises(StoreError, match="give each model its own database"), start(bundle=other.to_bytes()):
        pass


def _renamed(bundle: Bundle) -> Bundle:
    m, values = bundle.manifest, bundle.parameters()
    parameters = [Parameter(f"other/{p.name}", p.shape, p.dtype, p.role) for p in m.parameters]
    return Bundle.create(
        name="other",
        parameters=parameters,
        values={f"other/{name}": value for name, value in values.items()},
        inputs=m.inputs,
        step_inputs=m.step_inputs,
        label=m.label,
        output=m.output,
        loss=m.loss,
        batch_size=m.batch_size,
        artifacts=[ArtifactData("onnx", "step", minimal.onnx("never run here"))],
        golden=bundle.golden(),
    )


@on_sqlite
def test_database_that_cannot_be_opened_is_said(start, tmp_path):
    (tmp_path / "rounds.db").write_bytes(b"this is no database, and long enough to be looked at" * 20)

    with pytest.raises(StoreError, match="cannot open the database"), start():
        pass


@pytest.mark.parametrize(
    "options",
    [
        {"goal": 0},
        {"goal": 2, "minimum": 3},
        {"deadline_s": 0},
        {"rounds": -1},
        {"server_lr": 0},
        {"server_momentum": 1.0},
        {"surplus": -0.9},
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(OptionError):
        Settings(bundle=b"", database="x", **options)


@pytest.mark.parametrize(
    "tighter", [{"max_norm": 1e-6}, {"training": Training.of(density=0.001)}, {"max_update_bytes": 10}]
)
def test_tighter_limits_after_a_restart_are_for_the_rounds_to_come(start, make_frame, hello, tighter):
    with start(goal=2) as first:
        a, b = first.check_in(hello("a")).task, first.check_in(hello("b")).task
        first.accept(1, a.assignment, make_frame(1))

    with start(goal=2, **tighter) as second:
        again = second.check_in(hello("b")).task
        assert (again.training, again.max_bytes) == (b.training, b.max_bytes)
        assert second.expect(1, b.assignment) == b.max_bytes
        second.accept(1, b.assignment, make_frame(2))
        second.tick()

        assert second.status().version == 1
        task = second.check_in(hello("a")).task
        with pytest.raises(Refused, match=r"norm-exceeded|too-large"):
            second.accept(2, task.assignment, make_frame(1, 1))


def test_reason_with_characters_that_no_database_likes_is_kept(start, hello):
    with start() as c:
        task = c.check_in(hello("a")).task
        c.give_back(1, task.assignment, "no\0 memory \U0001f600")

        assert c.participants(1).participants[0].reason.endswith("memory \U0001f600")


def test_claimed_examples_weigh_no_more_than_the_round_shows(start, bundle, make_frame, hello):
    claims, frames = (10, 20, 2**31 - 1), [make_frame(n) for n in (1, 2, 3)]
    with start(goal=3, norm_bound=0.0) as c:
        for device, examples, frame in zip("abc", claims, frames, strict=True):
            c.accept(1, c.check_in(hello(device, examples)).task.assignment, frame)
        c.tick()

        expected = aggregate(bundle, frames, [10, 20, 10.0 * 20])
        np.testing.assert_array_equal(flat(c, 1), bundle.schema().flatten(expected.parameters()))


def test_closing_a_round_decodes_no_update_again(start, bundle, make_frame, hello, monkeypatch):
    def again(*_):
        raise AssertionError("decoded again")

    frames = [make_frame(1), make_frame(2)]
    with start(goal=2) as c:
        for device, frame in zip("ab", frames, strict=True):
            c.accept(1, c.check_in(hello(device)).task.assignment, frame)
        monkeypatch.setattr(Checks, "passed", again)
        c.tick()

        np.testing.assert_array_equal(
            flat(c, 1), bundle.schema().flatten(aggregate(bundle, frames).parameters())
        )


def test_same_bytes_from_many_threads_count_once(start, make_frame, hello):
    with start(goal=2) as c, ThreadPoolExecutor(8) as pool:
        a = c.check_in(hello("a")).task

        answers = list(pool.map(lambda _: c.accept(1, a.assignment, make_frame(1)), range(16)))

        assert sorted(x.duplicate for x in answers) == [False] + [True] * 15
        assert c.rounds()[0].updates == 1


def test_race_for_the_last_place_is_won_by_exactly_the_goal(start, bundle, make_frame, hello):
    def send(c, task):
        try:
            return None if c.accept(1, task.assignment, frames[task.assignment]).duplicate else task
        except Refused as refused:
            assert refused.reason == "round-closed"
            return None
        finally:
            c.tick()

    with start(goal=3, surplus=3.0) as c, ThreadPoolExecutor(8) as pool:
        tasks = [c.check_in(hello(f"device-{n}")).task for n in range(12)]
        frames = {t.assignment: make_frame(n) for n, t in enumerate(tasks)}

        winners = [t for t in pool.map(lambda t: send(c, t), tasks) if t]
        made = flat(c, 1)

    assert len(winners) == 3
    expected = aggregate(bundle, [frames[t.assignment] for t in winners])
    np.testing.assert_array_equal(made, bundle.schema().flatten(expected.parameters()))


def test_participants_and_refusals_are_told(start, make_frame, hello):
    with start(goal=2, surplus=1.0) as coordinator:
        tasks = {name: coordinator.check_in(hello(name, 7)).task for name in "abcd"}
        with pytest.raises(Refused):
            coordinator.accept(1, tasks["b"].assignment, b"nonsense")
        coordinator.give_back(1, tasks["c"].assignment, "no memory")
        for name in "ad":
            coordinator.accept(1, tasks[name].assignment, make_frame(ord(name), meta={"loss": 0.5}))
        coordinator.tick()
        with pytest.raises(Refused):
            coordinator.accept(1, tasks["b"].assignment, make_frame(1))

        found = coordinator.participants(1).participants
        counted = [{each.reason: each.count for each in info.refused} for info in coordinator.rounds()]

    assert [(each.device, each.state, each.reason) for each in found] == [
        ("a", "accepted", ""),
        ("b", "refused", "malformed-frame, round-closed"),
        ("c", "declined", "no memory"),
        ("d", "accepted", ""),
    ]
    assert {(each.engine, each.examples) for each in found} == {("test", 7)}
    assert (found[0].bytes, found[0].loss) == (len(make_frame(ord("a"), meta={"loss": 0.5})), 0.5)
    assert counted == [{"malformed-frame": 1, "round-closed": 1}, {}]


def test_devices_without_work_are_told_the_window_to_come_back_in(start, hello):
    with start(goal=1, surplus=0.0, pace_s=600.0) as coordinator:
        first, second = coordinator.check_in(hello("a")), coordinator.check_in(hello("b"))

    assert first.task is not None and second.task is None
    assert (second.retry_after_s, second.window_s) == (1.0, 600.0)
