# SPDX-License-Identifier: Apache-2.0
"""The device's loop against a server in memory that can be made to fail in every way."""

from __future__ import annotations

import logging
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle
from edgefl.data import Examples
from edgefl.delta import Limits, decode
from edgefl.errors import DataShape, NotFinite, OptionError, Refused, ServerNonsense, ServerUnreachable
from edgefl.options import FitOptions
from edgefl.parameters import Parameter
from edgefl.runtime.backends.numpy import NumpyBackend
from edgefl.runtime.cache import BundleCache, targets_for
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.learner import Learned, TrainerLearner
from edgefl.runtime.patience import Patience
from edgefl.runtime.pause import Pause
from edgefl.runtime.remote import Remote
from edgefl.runtime.report import RoundReport
from edgefl.runtime.transport import LoopbackTransport, Response
from edgefl.tensorfile import read_tensors
from edgefl.wire import CheckInAnswer
from tests.runtime.fakes import MODEL, SCHEMA, FakeServer, ScriptedLearner, failure

pytestmark = pytest.mark.device


@pytest.fixture
def sleeps() -> list[float]:
    return []


@pytest.fixture
def client(tmp_path, sleeps):
    """A function that makes a client of a server on the test's folder."""

    def make(server, learner=None, **patience) -> DeviceClient:
        learner = ScriptedLearner() if learner is None else learner
        return DeviceClient(
            LoopbackTransport(server),
            None,
            tmp_path,
            backend="numpy",
            learner=lambda _: learner,
            patience=Patience(sleep=sleeps.append, nap_s=1e9, random=random.Random(1), **patience),
        )

    return make


def residual(folder: Path) -> np.ndarray:
    return read_tensors((folder / "residual.safetensors").read_bytes())["residual"]


def test_takes_part_until_the_server_is_done(client):
    server, learner = FakeServer(rounds=3), ScriptedLearner()

    reports = list(client(server, learner).run())

    assert [r.round for r in reports] == [1, 2, 3]
    assert all(r.accepted and not r.duplicate and r.loss == 0.5 and not r.error for r in reports)
    assert [r.frame_bytes for r in reports] == [len(f) for f in server.frames.values()]
    assert all(r.bytes_up == r.frame_bytes and r.bytes_down > 4 * SCHEMA.size for r in reports)


def test_error_feedback_conserves_every_update(client, tmp_path):
    server, learner = FakeServer(rounds=4), ScriptedLearner()

    list(client(server, learner).run())

    sent = np.sum(server.deltas(), axis=0) + residual(tmp_path)
    np.testing.assert_allclose(sent, np.sum(learner.given, axis=0), rtol=1e-5, atol=1e-5)


def test_unbiased_updates_need_no_residual(client, tmp_path):
    server = FakeServer(rounds=1, mode="unbiased")

    list(client(server).run())

    assert len(server.frames) == 1 and not (tmp_path / "residual.safetensors").exists()


def test_residual_is_carried_over_a_restart(client, tmp_path):
    server, learner = FakeServer(rounds=4), ScriptedLearner()

    for _ in range(4):
        list(client(server, learner).run(max_rounds=1))

    sent = np.sum(server.deltas(), axis=0) + residual(tmp_path)
    np.testing.assert_allclose(sent, np.sum(learner.given, axis=0), rtol=1e-5, atol=1e-5)


def test_bundle_is_downloaded_once(client):
    server = FakeServer(rounds=2)
    sizes = []
    server.after = lambda m, p, a: sizes.append(len(a.body)) or a if "bundle" in p else a

    list(client(server).run(max_rounds=1))
    list(client(server).run(max_rounds=1))

    assert sizes[0] > 1000 and sizes[1:] == [0]


def test_damaged_bundle_on_disk_is_downloaded_again(client, tmp_path):
    server = FakeServer(rounds=2)
    list(client(server).run(max_rounds=1))
    (tmp_path / "bundle.edgefl").write_bytes(b"junk")

    assert [r.accepted for r in client(server).run(max_rounds=1)] == [True]


def test_two_clients_in_one_folder_are_refused(client, tmp_path):
    server = FakeServer()
    running = client(server).run()
    next(running)

    with pytest.raises(OptionError, match="in use by another client") as refused:
        next(client(FakeServer()).run())

    assert str(tmp_path) in str(refused.value) and str(os.getpid()) in str(refused.value)
    running.close()
    assert len(list(client(server).run())) == 2


def test_device_keeps_its_name(client):
    assert client(FakeServer()).device == client(FakeServer()).device


class Crash(BaseException):
    """The device loses power."""


def test_crash_before_the_update_left_sends_the_same_bytes_later(client, tmp_path):
    server, learner = FakeServer(rounds=2), ScriptedLearner()
    crashing(server, "before")
    with pytest.raises(Crash):
        list(client(server, learner).run())
    server.before = lambda m, p: None

    reports = list(client(server, learner).run())

    assert [r.round for r in reports] == [1, 2]
    assert len(learner.given) == 2 and len(server.uploads) == 2
    sent = np.sum(server.deltas(), axis=0) + residual(tmp_path)
    np.testing.assert_allclose(sent, np.sum(learner.given, axis=0), rtol=1e-5, atol=1e-5)


def test_crash_before_the_answer_arrived_counts_the_update_once(client, tmp_path):
    server, learner = FakeServer(rounds=2), ScriptedLearner()
    crashing(server, "after")
    with pytest.raises(Crash):
        list(client(server, learner).run())
    server.after = lambda m, p, answer: answer

    reports = list(client(server, learner).run())

    assert [(r.round, r.duplicate) for r in reports] == [(1, True), (2, False)]
    assert server.uploads[0] == server.uploads[1] and len(server.frames) == 2
    sent = np.sum(server.deltas(), axis=0) + residual(tmp_path)
    np.testing.assert_allclose(sent, np.sum(learner.given, axis=0), rtol=1e-5, atol=1e-5)


def crashing(server: FakeServer, when: str) -> None:
    def crash(method, path, answer=None):
        if "/updates/" in path:
            raise Crash
        return answer

    setattr(server, when, crash)


@pytest.mark.parametrize("leftover", ["pending.new", "pending.old"])
def test_crash_while_storing_or_clearing_is_cleaned_up(client, tmp_path, leftover):
    (tmp_path / leftover).mkdir()
    (tmp_path / leftover / "update.eflu").write_bytes(b"half")

    assert len(list(client(FakeServer(rounds=2)).run())) == 2
    assert not (tmp_path / leftover).exists()


@pytest.mark.parametrize("damage", ["note.json", "update.eflu"])
def test_damaged_pending_update_is_dropped(client, tmp_path, damage, caplog):
    server = FakeServer(rounds=1)
    crashing(server, "before")
    with pytest.raises(Crash):
        list(client(server).run())
    server.before = lambda m, p: None
    (tmp_path / "pending" / damage).write_bytes(b"half")

    reports = list(client(server).run())

    assert [r.round for r in reports] == [1]
    assert "dropped" in caplog.text


def test_lost_answer_is_asked_for_again_with_the_same_bytes(client):
    server = FakeServer(rounds=1)
    lost = []

    def lose(method, path, answer):
        if "/updates/" in path and not lost:
            lost.append(1)
            raise ServerUnreachable("connection lost")
        return answer

    server.after = lose

    [report] = client(server).run()

    assert report.accepted and report.duplicate
    assert server.uploads[0] == server.uploads[1]


def test_refused_update_leaves_the_residual_as_it_was(client, tmp_path):
    server, learner = FakeServer(rounds=2), ScriptedLearner()
    list(client(server, learner).run(max_rounds=1))
    before = residual(tmp_path)
    server.before = lambda m, p: failure(409, "round-closed") if "/updates/" in p else None

    [report] = client(server, learner).run(max_rounds=1)

    assert not report.accepted and "round-closed" in report.error
    np.testing.assert_array_equal(residual(tmp_path), before)
    assert not (tmp_path / "pending").exists()


GARBAGE = [
    Response(200, {}, b""),
    Response(200, {}, b"<html>Welcome to the hotel network</html>"),
    Response(200, {}, b"{}" * 10),
    Response(200, {}, b'{"task": 5}'),
    Response(200, {}, b"[]"),
    Response(200, {}, bytes(300)),
    Response(200, {}, b'{"accepted": false, "duplicate": false}'),
    Response(302, {"location": "http://portal"}, b""),
    Response(404, {}, b"<h1>Not found</h1>"),
    Response(400, {}, b'{"reason": 7}'),
    Response(500, {}, b"oops"),
    Response(502, {}, b'{"reason": "bad-gateway", "detail": ""}'),
    Response(200, {}, b" " * (1 << 23)),
    ServerUnreachable("down"),
    ServerNonsense("not HTTP"),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
@pytest.mark.parametrize("route", ["check-in", "bundle", "parameters", "updates"])
def test_nonsense_is_waited_out(client, sleeps, route, garbage):
    server, times = FakeServer(rounds=1), []

    def talk_nonsense(method, path):
        if route in path and len(times) < 3:
            times.append(1)
            if isinstance(garbage, Exception):
                raise garbage
            return garbage
        return None

    server.before = talk_nonsense

    [report] = client(server).run()

    assert report.accepted and len(sleeps) == 3


def test_waits_grow_and_are_drawn_from_the_whole_range(client, sleeps):
    server = FakeServer(rounds=1)
    server.before = lambda m, p: Response(503) if len(sleeps) < 200 else None

    list(client(server, first_s=1.0, longest_s=8.0).run())

    assert all(s <= bound for s, bound in zip(sleeps, [1, 2, 4, *[8] * 197], strict=True))
    late = sleeps[3:]
    assert min(late) < 1 and max(late) > 7 and 3 < np.mean(late) < 5


def test_server_that_asks_for_time_gets_it(client, sleeps):
    server = FakeServer(rounds=1)
    server.before = lambda m, p: Response(503, {"retry-after": "30"}) if not sleeps else None

    list(client(server, first_s=1.0).run())

    assert 30 <= sleeps[0] <= 31


def test_no_task_means_waiting_about_as_long_as_the_server_says(client, sleeps):
    server = FakeServer(rounds=1)
    nothing = Response(200, {}, CheckInAnswer(None, 10.0).to_bytes())
    server.before = lambda m, p: nothing if "check-in" in p and len(sleeps) < 5 else None

    list(client(server).run())

    assert len(set(sleeps)) == 5 and all(10 <= s <= 12.5 for s in sleeps)


def test_a_server_that_names_no_time_is_not_hammered(client, sleeps):
    server = FakeServer(rounds=1)
    nothing = Response(200, {}, b"{}")
    server.before = lambda m, p: nothing if "check-in" in p and len(sleeps) < 5 else None

    list(client(server, first_s=2.0).run())

    assert len(sleeps) == 5 and min(sleeps) >= 0.2


def test_devices_spread_over_the_server_s_window(client, sleeps):
    server = FakeServer(rounds=1)
    nothing = Response(200, {}, CheckInAnswer(None, 10.0, window_s=600.0).to_bytes())
    server.before = lambda m, p: nothing if "check-in" in p and len(sleeps) < 200 else None

    list(client(server).run())

    assert all(10 <= s <= 610 for s in sleeps)
    assert {int((s - 10) // 60) for s in sleeps} == set(range(10))


@pytest.mark.parametrize("answer", ["no task", "busy"])
def test_a_wait_of_a_day_ends_within_a_second_of_being_asked_to(tmp_path, sleeps, answer):
    server = FakeServer(rounds=1)
    day = {
        "no task": Response(200, {}, CheckInAnswer(None, 86_400.0).to_bytes()),
        "busy": Response(503, {"retry-after": "86400"}),
    }[answer]
    server.before = lambda m, p: day if "check-in" in p else None
    client = DeviceClient(
        LoopbackTransport(server), None, tmp_path, backend="numpy", learner=lambda _: ScriptedLearner(),
        patience=Patience(sleep=sleeps.append),
    )  # fmt: skip

    assert list(client.run(until=lambda: len(sleeps) >= 5)) == []
    assert sleeps == [1.0] * 5


def test_patience_may_have_an_end(client, sleeps):
    server = FakeServer()
    server.before = lambda m, p: Response(503)

    with pytest.raises(ServerUnreachable):
        list(client(server, give_up_s=100, clock=lambda: sum(sleeps)).run())

    assert sum(sleeps) >= 100


def test_client_stops_when_asked_even_while_it_waits(client, sleeps):
    server = FakeServer()
    server.before = lambda m, p: Response(503)

    assert list(client(server).run(until=lambda: len(sleeps) >= 4)) == []
    assert len(sleeps) == 4


def test_diverged_training_sends_nothing_and_says_so(client, caplog):
    server, learner = FakeServer(rounds=2), ScriptedLearner()
    learner.error = NotFinite("loss is nan at step 3")

    with caplog.at_level(logging.ERROR):
        first, second = client(server, learner).run()

    assert not first.accepted and "loss is nan at step 3" in first.error
    assert second.accepted and list(server.frames) == [2]
    assert server.declines == ["loss is nan at step 3"]
    assert "no update is sent: loss is nan" in caplog.text


@pytest.mark.parametrize("loss", [2e38, -1e31, float("inf")])
def test_loss_beyond_limits_ends_the_round_only(client, loss):
    server, learner = FakeServer(rounds=2), ScriptedLearner()
    learn = learner.learn

    def once(parameters, training, stint):
        learner.learn = learn
        return replace(learn(parameters, training, stint), loss=loss)

    learner.learn = once

    first, second = client(server, learner).run()

    assert "loss of" in first.error and second.accepted and len(server.declines) == 1


def test_update_that_is_not_finite_is_never_sent(client):
    server, learner = FakeServer(rounds=1), ScriptedLearner()
    learner.learn = lambda p, t, stint: Learned(np.full(SCHEMA.size, np.nan, np.float32), 0.1)

    [report] = client(server, learner).run()

    assert report.error and not server.uploads


def test_parameters_the_server_does_not_have_end_the_round_only(client):
    server, asked = FakeServer(rounds=1), []

    def forget(method, path):
        if "/parameters/" in path and not asked:
            asked.append(path)
            return failure(404, "unknown-version")
        return None

    server.before = forget

    first, second = client(server).run()

    assert "unknown-version" in first.error and second.accepted


def test_refused_check_in_ends_the_client(client):
    server = FakeServer()
    server.before = lambda m, p: failure(403, "not-welcome") if "check-in" in p else None

    with pytest.raises(Refused, match="not-welcome"):
        list(client(server).run())


def test_next_target_is_asked_for_where_the_server_lacks_the_first(tmp_path):
    server = FakeServer()
    server.before = lambda m, p: failure(404, "unknown-target") if "coreml" in p else None
    remote, cache = Remote(LoopbackTransport(server)), BundleCache(tmp_path, ("coreml", "onnx"))

    assert cache.fetch(remote).manifest.targets == ("onnx",)
    assert cache.fetch(remote).manifest.targets == ("onnx",)
    with pytest.raises(Refused, match="unknown-target"):
        BundleCache(tmp_path, ("coreml",)).fetch(remote)


@pytest.mark.parametrize(
    ("backend", "targets"), [("onnx", ("onnx",)), ("tflite", ("tflite",)), ("numpy", ("onnx",))]
)
def test_targets_of_each_backend(backend, targets):
    assert targets_for(backend) == targets
    assert "onnx" in targets_for("auto")


def test_examples_that_do_not_fit_end_the_client(client):
    server, learner = FakeServer(), ScriptedLearner()
    learner.error = DataShape("x has shape (3,), expected (6,)")

    with pytest.raises(DataShape):
        list(client(server, learner).run())

    assert server.declines and not server.uploads


def test_declining_is_only_a_courtesy(client):
    server, learner = FakeServer(rounds=1), ScriptedLearner()
    learner.error = NotFinite("loss is nan")
    server.before = lambda m, p: Response(503) if "declines" in p else None

    first, second = client(server, learner).run()

    assert (first.accepted, second.accepted) == (False, True)


def test_update_over_the_byte_limit_is_not_sent(client):
    server = FakeServer(rounds=1)
    server.max_bytes = 50

    [report] = client(server).run()

    assert "allowed 50" in report.error and not server.uploads


def renamed(roles: dict[str, str] | None = None, prefix: str = "") -> Bundle:
    """The model under other parameter names or with other roles."""
    m, values = MODEL.manifest, MODEL.parameters()
    return Bundle.create(
        name="other",
        parameters=[
            Parameter(prefix + p.name, p.shape, p.dtype, (roles or {}).get(p.name, p.role))
            for p in m.parameters
        ],
        values={prefix + n: v for n, v in values.items()},
        inputs=m.inputs,
        step_inputs=m.step_inputs,
        label=m.label,
        output=m.output,
        loss=m.loss,
        batch_size=m.batch_size,
        artifacts=[
            ArtifactData(a.target, a.kind, MODEL.artifact(a.target, a.kind), a.inputs, a.outputs)
            for a in m.artifacts
        ],
        golden=MODEL.golden(),
    )


def test_server_with_a_new_model_is_followed(client):
    server = FakeServer(rounds=2)
    running = client(server).run()
    assert next(running).accepted

    server.bundle = renamed(prefix="new/")

    assert next(running).accepted
    assert [decode(server.frames[2], Limits(server.bundle.schema().id, SCHEMA.size)).base_version] == [1]


def test_server_that_refuses_its_own_model_ends_the_client(client):
    server = FakeServer()
    server.before = lambda m, p: failure(409, "wrong-schema") if "check-in" in p else None

    with pytest.raises(Refused, match="wrong-schema"):
        list(client(server).run())


def examples(count: int = 48, seed: int = 0) -> Examples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return Examples(x, (x[:, 0] > 0).astype(np.int32))


def take_part(server: FakeServer, folder: Path, **options) -> list[RoundReport]:
    """What a real device with the NumPy engine reports."""
    client = DeviceClient(LoopbackTransport(server), examples(), folder, backend="numpy")
    return list(client.run(**options))


def test_real_training_with_the_numpy_backend(tmp_path, sleeps):
    server = FakeServer(rounds=1, epochs=5, density=1.0)
    client = DeviceClient(LoopbackTransport(server), examples(), tmp_path, backend="numpy")

    [report] = client.run()

    [delta] = server.deltas()
    assert report.accepted and np.count_nonzero(delta) > SCHEMA.size // 2
    start = TrainerLearner(MODEL, examples(), backend="numpy")
    values = SCHEMA.unflatten(SCHEMA.flatten(MODEL.parameters()) + delta)
    training = FitOptions(epochs=1, lr=1e-9)
    assert start.learn(values, training).loss < start.learn(MODEL.parameters(), training).loss - 0.05


def test_features_are_made_once_for_all_rounds_and_restarts(tmp_path, sleeps, monkeypatch):
    head = Bundle.open(Path(__file__).parent.parent / "fixtures" / "head.edgefl")
    server = FakeServer(rounds=4, bundle=head, density=1.0)
    kinds = []
    load = NumpyBackend.load
    monkeypatch.setattr(NumpyBackend, "load", lambda b, m, kind: kinds.append(kind) or load(b, m, kind))

    def take_part() -> list[RoundReport]:
        client = DeviceClient(LoopbackTransport(server), examples(), tmp_path, backend="numpy")
        return list(client.run(max_rounds=2))

    before, after = take_part(), take_part()

    assert all(report.accepted for report in before + after)
    assert {p.graph for p in before[0].placements} == {"features", "step"}
    assert [p.graph for p in after[1].placements] == ["step"]
    assert kinds.count("features") == 1
    assert len(list((tmp_path / "features").rglob("*.features"))) == 1


def test_personal_parameters_stay_and_survive_a_restart(tmp_path):
    model = renamed({"head/kernel": "personal", "head/bias": "personal"})
    server = FakeServer(rounds=2, bundle=model, epochs=3, density=1.0)

    first = take_part(server, tmp_path, max_rounds=1)

    kept = read_tensors((tmp_path / "personal.safetensors").read_bytes())
    assert server.deltas()[0].shape == (6 * 10 + 10,) and set(kept) == {"head/kernel", "head/bias"}
    assert not np.array_equal(kept["head/kernel"], model.parameters()["head/kernel"])
    # The fake server gives out the same shared parameters again: what is better is what stayed here.
    [again] = take_part(server, tmp_path)
    assert again.loss < first[0].loss


def test_what_keeps_a_device_from_going_on_is_waited_out_before_requests_and_between_steps(tmp_path, sleeps):
    server = FakeServer(rounds=2, epochs=3)
    asked, reasons = [], {1: "not charging", 2: "not charging", 12: "too warm"}

    def may_go_on() -> Pause | None:
        asked.append(len(server.requests))
        return Pause(reasons[len(asked)], 20.0) if len(asked) in reasons else None

    client = DeviceClient(
        LoopbackTransport(server),
        examples(),
        tmp_path,
        backend="numpy",
        patience=Patience(sleep=sleeps.append, nap_s=1e9, random=random.Random(1)),
        may_go_on=may_go_on,
    )

    reports = list(client.run())

    assert asked[:3] == [0, 0, 0] and len(sleeps) == 2 and all(15 <= s <= 25 for s in sleeps)
    steps = 2 * 3 * 6
    assert [r.accepted for r in reports] == [True, True] and len(asked) > steps + len(server.requests)
    assert server.requests.count("POST /v1/check-in") == 4


def test_client_stops_between_steps_when_asked(tmp_path):
    server, asked = FakeServer(rounds=1, epochs=10_000), []

    def until() -> bool:
        asked.append(1)
        return len(asked) > 20

    client = DeviceClient(LoopbackTransport(server), examples(), tmp_path, backend="numpy")

    assert list(client.run(until=until)) == []
    assert len(asked) <= 23 and not server.uploads
