# SPDX-License-Identifier: Apache-2.0
"""Versions: where they come from, promoted, pinned, rolled back to; rounds held and gone on with."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edgefl
from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.delta import Limits, decode
from edgefl.errors import OptionError, Refused
from edgefl.runtime.administration import Administration, AdminTransport
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.follower import Follower
from edgefl.runtime.held import HeldVersion
from edgefl.runtime.transport import HttpTransport
from edgefl.server_stub.aggregators.scaffold import Scaffold
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.values import Version
from edgefl.server_stub.versions import Line
from edgefl.tensorfile import read_tensors, write_tensors
from edgefl.wire import Evaluated, Training


def work(server, hello, make_frame, versions):
    """A round of one device from each of these versions."""
    remote = server.remote()
    for version in versions:
        task = remote.check_in(hello("a")).task
        remote.upload(task.round, task.assignment, make_frame(version, version))
        server.wait_for_version(version + 1)
    return remote


def vector(remote, bundle, version):
    return bundle.schema().flatten(remote.parameters(version, bundle.schema()))


@pytest.mark.parametrize("downlink", [0.0, 0.03], ids=["whole", "steps"])
def test_a_way_back_is_a_new_version_with_the_old_bits(serve, hello, make_frame, bundle, downlink, tmp_path):
    server = serve(goal=1, rounds=6, downlink=downlink, server_momentum=0.9)
    remote = work(server, hello, make_frame, range(3))
    admin = Administration(server.transport())
    held = HeldVersion(tmp_path / "held.safetensors", bundle)
    late = remote.check_in(hello("late")).task
    held.fetch(remote, late)

    made = [admin.restore(1), admin.restore(1)]
    with pytest.raises(Refused) as refused:
        remote.upload(late.round, late.assignment, make_frame(9, 3))
    server.kill()
    server.start()
    again = server.remote()
    task = again.check_in(hello("b")).task

    assert made == [4, 4] and refused.value.reason == "round-closed"
    old = vector(again, bundle, 1)
    np.testing.assert_array_equal(vector(again, bundle, 4), old)
    # A device that holds version 3 is led there by steps, or fetches it whole.
    assert (task.round, task.base_version, bool(task.fingerprint)) == (5, 4, bool(downlink))
    np.testing.assert_array_equal(bundle.schema().flatten(held.fetch(again, task)), old)
    again.upload(task.round, task.assignment, make_frame(4, 4))
    server.wait_for_version(5)
    lineage = [(v.version, v.parent, v.restores, v.round, v.updates) for v in again.versions()]
    assert lineage == [
        (0, None, None, None, 0),
        (1, 0, None, 1, 1),
        (2, 1, None, 2, 1),
        (3, 2, None, 3, 1),
        (4, 3, 1, 4, 0),
        (5, 4, None, 5, 1),
    ]
    assert {v.bundle for v in again.versions()} == {bundle.digest}
    if not downlink:
        # Nothing of what came after version 1, such as momentum, is in the next one.
        update = decode(make_frame(4, 4), Limits(bundle.schema().id, bundle.schema().size)).dense()
        np.testing.assert_allclose(vector(again, bundle, 5), old + update, rtol=1e-6)


def test_what_a_rolled_back_round_had_accepted_is_named(serve, hello, make_frame):
    server = serve(goal=2, rounds=3)
    remote, admin = server.remote(), Administration(server.transport())
    for round_number in (1, 2):
        tasks = [remote.check_in(hello(name)).task for name in "ab"]
        for seed, task in enumerate(tasks[: 3 - round_number]):
            remote.upload(task.round, task.assignment, make_frame(seed, task.base_version))
        if round_number == 1:
            server.wait_for_version(1)

    assert admin.restore(0) == 2

    info = remote.rounds()[1]
    assert (info.state, info.version, info.updates, info.bounded) == ("closed", 2, 1, 1)
    found = {one.state: one for one in remote.participants(2)}
    assert found["accepted"].counted == 0.0 and "rolled back to version 0" in found["accepted"].reason
    assert remote.status().round.round == 3
    with pytest.raises(Refused, match="nothing is undone"):
        admin.restore(2)


def test_the_promoted_version_is_pulled_until_another_is(serve, hello, make_frame, tmp_path):
    server = serve(goal=1, rounds=2)
    work(server, hello, make_frame, range(2))
    admin = Administration(server.transport())
    newest = edgefl.pull(server.url).manifest.model_version

    admin.promote(1)
    server.kill()
    server.start()

    assert newest == 2 and edgefl.pull(server.url).manifest.model_version == 1
    follower = Follower(server.transport(), tmp_path / "follower", backend="numpy")
    assert follower.refresh().manifest.model_version == 1
    assert edgefl.pull(server.url, version=2).manifest.model_version == 2
    assert [v.promoted for v in server.remote().versions()] == [False, True, False]
    again = Administration(server.transport())
    again.promote(2)
    assert edgefl.pull(server.url).manifest.model_version == 2
    for decide in (again.promote, again.pin, again.restore):
        with pytest.raises(Refused) as refused:
            decide(7)
        assert refused.value.reason == "unknown-version"


def test_pinned_and_promoted_versions_stay(serve, hello, make_frame, bundle):
    server = serve(goal=1, rounds=14, keep_versions=1)
    remote = work(server, hello, make_frame, range(4))
    admin = Administration(server.transport())
    old = vector(remote, bundle, 2)
    admin.pin(1)
    admin.promote(2)
    admin.pin(3)
    admin.pin(3, False)

    remote = work(server, hello, make_frame, range(4, 13))

    kept = {v.version for v in remote.versions() if v.kept}
    assert kept == {0, 1, 2, *range(5, 14)}
    assert [v.version for v in remote.versions() if v.pinned] == [1]
    np.testing.assert_array_equal(vector(remote, bundle, 2), old)
    assert admin.restore(1) == 14
    np.testing.assert_array_equal(vector(remote, bundle, 14), vector(remote, bundle, 1))


def test_held_rounds_wait_and_go_on(serve, hello, make_frame):
    server = serve(goal=1, rounds=2)
    remote, admin = server.remote(), Administration(server.transport())
    task = remote.check_in(hello("a")).task

    admin.hold("a look at the data")
    remote.upload(task.round, task.assignment, make_frame(0, 0))
    server.wait_for_version(1)
    server.kill()
    server.start()
    again = server.remote()
    waiting, status = again.check_in(hello("a")), again.status()

    assert (waiting.task, waiting.finished, status.finished, status.round) == (None, False, False, None)
    assert status.held == "a look at the data"
    Administration(server.transport()).resume()
    task = again.check_in(hello("a")).task
    assert task.round == 2 and again.status().held == ""
    again.upload(task.round, task.assignment, make_frame(1, 1))
    server.wait_for_version(2)
    Administration(server.transport()).hold()
    assert again.check_in(hello("a")).finished


def test_rounds_are_held_where_devices_find_a_version_worse(tmp_path: Path, hello, make_frame):
    settings = Settings(
        Path(__file__).parent.parent / "fixtures" / "mlp.edgefl",
        tmp_path / "rounds.db",
        goal=1,
        rounds=9,
        evaluate_every=1,
        evaluators=3,
        hold_rise=0.2,
        hold_window=2,
        training=Training.of(density=0.2),
    )
    coordinator = Coordinator(settings)
    held = []
    # One device of three lies, which holds nobody up; 0.5 is forgotten by the window when 1.19 comes.
    for version, losses in enumerate([(0.5, 0.5, 0.5), (1e29, 0.55, 0.6), (0.7, 0.9, 1.0)]):
        for name, loss in zip("xyz", losses, strict=True):
            answer = coordinator.check_in(replace(hello(name), held_out=5)).evaluation
            coordinator.evaluations.accept(version, answer.assignment, Evaluated(5, loss))
        held.append(coordinator.status().held)
        task = coordinator.check_in(hello("trainer")).task
        coordinator.accept(task.round, task.assignment, make_frame(version, version))
        coordinator.tick()

    assert held[:2] == ["", ""] and "version 2 has a median loss of 0.9" in held[2]
    assert "the best of the last 2 has 0.5" in held[2]
    assert coordinator.round_number is None and not coordinator.check_in(hello("trainer")).finished
    assert coordinator.registry.restore(1) == 4
    coordinator.registry.resume()
    assert coordinator.check_in(hello("trainer")).task.base_version == 4
    newest = coordinator.status().evaluation
    assert (newest.version, newest.state) == (4, "open")
    coordinator.close()


def test_who_is_no_administrator_decides_nothing(serve):
    server = serve(enrolled=True)
    token = (server.folder / "rounds.db.admin").read_text().strip()

    stranger, admin = server.transport(), AdminTransport(server.transport(), token)
    asked = [
        ("PUT", "/v1/admin/versions/0/promoted", b""),
        ("PUT", "/v1/admin/versions/0/pinned", b""),
        ("DELETE", "/v1/admin/versions/0/pinned", b""),
        ("PUT", "/v1/admin/versions/0/restored", b""),
        ("PUT", "/v1/admin/hold", b"{}"),
        ("DELETE", "/v1/admin/hold", b""),
    ]

    refused = [stranger.request(*one, limit=1 << 16).status for one in asked]
    taken = [admin.request(*one, limit=1 << 16).status for one in asked]

    assert set(refused) <= {401, 403} and taken == [204, 204, 204, 409, 204, 204]


def test_a_device_trains_on_through_a_way_back(serve, bundle: Bundle, tmp_path: Path):
    """From the client to the frames: its chain of steps only goes forward."""
    server = serve(goal=1, rounds=5, downlink=0.03, training={"density": 0.2, "lr": 0.1})
    random = np.random.default_rng(0)
    mine = Examples(random.normal(size=(40, 6)).astype(np.float32), random.integers(0, 3, 40))
    reports = []

    with HttpTransport(server.url) as transport:
        client = DeviceClient(transport, mine, tmp_path / "device", backend="numpy", device="d")
        for report in client.run():
            reports.append((report.round, report.base_version, report.accepted))
            server.wait_for_version(len(reports) + (len(reports) > 2))
            if len(reports) == 2:
                assert Administration(server.transport()).restore(1) == 3

    assert reports == [(1, 0, True), (2, 1, True), (4, 3, True), (5, 4, True)]
    deadline = time.monotonic() + 30
    while not server.status().finished:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pulled = edgefl.pull(server.url)
    assert pulled.manifest.model_version == 5 and pulled.schema().id == bundle.schema().id


def test_a_way_back_keeps_what_devices_have_their_part_of(bundle: Bundle) -> None:
    schema = bundle.schema()
    start = np.zeros(schema.size, np.float32)
    old = write_tensors(schema.unflatten(start))
    c, line = start + 1, Line(schema, 0, start, Scaffold(lr=0.1), 0.03)

    made = line.restored(Version(7, old, write_tensors({"c": c})), 3, old)

    assert (made.number, made.parent, made.restores) == (8, 7, 3)
    np.testing.assert_array_equal(read_tensors(made.optimizer)["c"], c)


def test_holding_by_what_nobody_measures_is_refused() -> None:
    with pytest.raises(OptionError, match="give evaluate_every too"):
        Settings(b"", "", hold_rise=0.2)
