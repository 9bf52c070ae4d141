# SPDX-License-Identifier: Apache-2.0
"""The way down: devices hold the same bits whatever path they took, and the server loses nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.bundle import Bundle
from edgefl.delta import encode
from edgefl.delta.lattice import decode_moves, encode_moves, fingerprint, weights
from edgefl.errors import Refused, ServerNonsense
from edgefl.runtime.held import HeldVersion
from edgefl.runtime.remote import Remote
from edgefl.runtime.transport import LoopbackTransport, Response
from edgefl.server_stub import downlink, store
from edgefl.server_stub.aggregators import Contribution, Gathered
from edgefl.server_stub.aggregators.chain import Chain
from edgefl.server_stub.aggregators.mean import Mean
from edgefl.server_stub.aggregators.optimizers import averaging
from edgefl.server_stub.checks import Checks
from edgefl.server_stub.coordinator import Coordinator
from edgefl.server_stub.downlink import CHAIN
from edgefl.server_stub.publish import Standing, choose, publish
from edgefl.server_stub.settings import Settings
from edgefl.server_stub.values import Version
from edgefl.server_stub.versions import Line
from edgefl.tensorfile import read_tensors, write_tensors
from edgefl.wire import CheckIn, Failure, Task, Training

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
BUNDLE = Bundle.open(MODEL)
SCHEMA = BUNDLE.schema()
ROUNDS = 12


def settings_for(database: Path, **options) -> Settings:
    defaults = {"goal": 1, "rounds": ROUNDS, "training": Training.of(density=0.3)}
    return Settings(MODEL, database, **{**defaults, **options})


def run_round(coordinator: Coordinator, seed: int, scale: float = 0.1) -> Task:
    task = coordinator.check_in(CheckIn("trainer", SCHEMA.id.hex(), "test", 10)).task
    assert task is not None
    vector = np.random.default_rng(seed).normal(size=SCHEMA.size, scale=scale).astype(np.float32)
    frame = encode(vector, schema_id=SCHEMA.id, base_version=task.base_version, density=0.3).frame
    coordinator.accept(task.round, task.assignment, frame)
    coordinator.tick()
    return task


class Served:
    """A coordinator behind the routes that a device's copy of the model needs."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.paths: list[str] = []
        self.damage = lambda path, body: body

    def __call__(self, method, path, body, headers) -> Response:
        self.paths.append(path)
        words = path.split("/")
        try:
            if "from" in words:
                found = self.coordinator.shelf.moves(int(words[3]), int(words[5]))
            else:
                found = self.coordinator.shelf.parameters(int(words[3]))
        except Refused as exc:
            return Response(exc.status, {}, Failure(exc.reason, exc.detail).to_bytes())
        return Response(200, {}, self.damage(path, found))

    def remote(self) -> Remote:
        return Remote(LoopbackTransport(self))


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A coordinator with all rounds but one done, and the task of every round."""
    database = tmp_path_factory.mktemp("history") / "rounds.db"
    coordinator = Coordinator(settings_for(database))
    # Steps of very different size, so that their units differ.
    tasks = [run_round(coordinator, n, scale=10.0 ** -(n % 4)) for n in range(ROUNDS - 1)]
    yield coordinator, [*tasks, coordinator.check_in(CheckIn("b", SCHEMA.id.hex(), "test", 1)).task]
    coordinator.close()


def flat(values) -> np.ndarray:
    return SCHEMA.flatten(values).view(np.uint32)


@given(stops=st.sets(st.integers(0, ROUNDS - 1)), restarts=st.sets(st.integers(0, ROUNDS - 1)))
@settings(max_examples=40, deadline=None)
def test_every_path_leads_to_the_same_bits(history, tmp_path_factory, stops, restarts):
    coordinator, tasks = history
    served, file = Served(coordinator), tmp_path_factory.mktemp("device") / "held"
    device = HeldVersion(file, BUNDLE)

    for version in sorted({*stops, ROUNDS - 1}):
        try:
            found = device.fetch(served.remote(), tasks[version])
        except Refused:
            # Only the newest versions have a way from far behind; that is no round this device could be in.
            assert version < ROUNDS - 2
            continue
        np.testing.assert_array_equal(flat(found), flat(read_tensors(coordinator.shelf.parameters(version))))
        if version in restarts:
            device = HeldVersion(file, BUNDLE)

    assert served.paths[-1].startswith(f"/v1/parameters/{ROUNDS - 1}/from/") or not stops - {0}


@pytest.mark.parametrize("held", range(ROUNDS - 1))
def test_steps_are_shorter_than_the_model(history, held):
    coordinator, _ = history

    assert len(coordinator.shelf.moves(ROUNDS - 1, held)) < 4 * SCHEMA.size + 100


def test_first_version_costs_nothing(history, tmp_path):
    coordinator, tasks = history
    served = Served(coordinator)

    found = HeldVersion(tmp_path / "held", BUNDLE).fetch(served.remote(), tasks[0])

    assert not served.paths
    np.testing.assert_array_equal(flat(found), flat(read_tensors(coordinator.shelf.parameters(0))))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, body: body if "/from/0" in path else body[:-1],
        lambda path, body: body if "/from/0" in path else b"",
        lambda path, body: b"" if "from" in path else body,
    ],
)
def test_nonsense_is_reported_and_leaves_what_is_held(history, tmp_path, damage):
    coordinator, tasks = history
    served, device = Served(coordinator), HeldVersion(tmp_path / "held", BUNDLE)
    device.fetch(served.remote(), tasks[ROUNDS - 2])
    served.damage = damage

    with pytest.raises(ServerNonsense):
        device.fetch(served.remote(), tasks[ROUNDS - 1])

    served.damage = lambda path, body: body
    found = device.fetch(served.remote(), tasks[ROUNDS - 1])
    np.testing.assert_array_equal(flat(found), flat(read_tensors(coordinator.shelf.parameters(ROUNDS - 1))))


def test_other_steps_than_the_task_s_are_found_out(history, tmp_path):
    coordinator, tasks = history
    served, device = Served(coordinator), HeldVersion(tmp_path / "held", BUNDLE)
    other = coordinator.shelf.moves(5, 4)
    served.damage = lambda path, body: other if "from" in path else body

    found = device.fetch(served.remote(), tasks[ROUNDS - 1])

    assert served.paths[-1] == f"/v1/parameters/{ROUNDS - 1}"
    np.testing.assert_array_equal(flat(found), flat(read_tensors(coordinator.shelf.parameters(ROUNDS - 1))))


@pytest.mark.parametrize("content", [b"", b"garbage", "moved", "wrong size"])
def test_damaged_file_costs_bytes_only(history, tmp_path, content):
    coordinator, tasks = history
    file = tmp_path / "held"
    HeldVersion(file, BUNDLE).fetch(Served(coordinator).remote(), tasks[ROUNDS - 2])
    if content == "moved":
        content = file.read_bytes()[:-4] + b"\0\0\x80?"
    elif content == "wrong size":
        content = write_tensors({"moved": np.zeros(3, np.float32)}, {"version": "1", "start": "?"})
    file.write_bytes(content)

    found = HeldVersion(file, BUNDLE).fetch(Served(coordinator).remote(), tasks[ROUNDS - 1])

    np.testing.assert_array_equal(flat(found), flat(read_tensors(coordinator.shelf.parameters(ROUNDS - 1))))


def test_restarted_server_goes_on_with_what_it_had_published(tmp_path):
    made = {}
    for name, restarts in (("a", False), ("b", True)):
        coordinator = Coordinator(settings_for(tmp_path / f"{name}.db"))
        for n in range(5):
            run_round(coordinator, n)
            if restarts:
                coordinator.close()
                coordinator = Coordinator(settings_for(tmp_path / f"{name}.db"))
        made[name] = [coordinator.shelf.parameters(v) for v in range(6)]
        made[name + " moves"] = [coordinator.shelf.moves(5, v) for v in range(5)]
        coordinator.close()

    assert made["a"] == made["b"] and made["a moves"] == made["b moves"]


def test_a_way_is_coded_once_for_all_devices_that_take_it(tmp_path, monkeypatch):
    coordinator = Coordinator(settings_for(tmp_path / "x.db", rounds=20))
    for n in range(CHAIN + 4):
        run_round(coordinator, n)
    coded, decoded = [], []

    def counted(total, unit, **options):
        coded.append(options["base_version"])
        return encode_moves(total, unit, **options)

    def read(frame, **options):
        decoded.append(frame)
        return decode_moves(frame, **options)

    downlink._moves.cache_clear()
    monkeypatch.setattr("edgefl.server_stub.downlink.lattice.encode_moves", counted)
    monkeypatch.setattr("edgefl.server_stub.downlink.lattice.decode_moves", read)
    newest = CHAIN + 4
    ways = {held: coordinator.shelf.moves(newest, held) for held in range(newest)}
    first = list(coded)
    again = {held: coordinator.shelf.moves(newest, held) for held in range(newest)}
    coordinator.close()

    assert again == ways and coded == first
    assert len(decoded) == CHAIN
    assert len({ways[held] for held in range(4)}) == 1
    # One each for those that are two to eight behind, and one for all that come from the first version.
    assert sorted(coded) == sorted([0, *range(newest - CHAIN, newest - 1)])


def test_crash_while_closing_publishes_nothing(tmp_path, monkeypatch):
    coordinator = Coordinator(settings_for(tmp_path / "x.db"))

    def crash(*_):
        raise RuntimeError("power failure")

    monkeypatch.setattr(store, "insert_round", crash)
    with pytest.raises(RuntimeError):
        run_round(coordinator, 1)
    monkeypatch.undo()
    coordinator.close()

    again = Coordinator(settings_for(tmp_path / "x.db"))
    with pytest.raises(Refused):
        again.shelf.moves(1, 0)
    again.tick()
    assert len(again.shelf.moves(1, 0)) > 32
    again.close()


@pytest.mark.parametrize("sequence", [(0.0, 0.03), (0.03, 0.0), (0.03, 0.0, 0.03), (0.0, 0.0, 0.2, 0.01)])
def test_publishing_may_change_between_starts(tmp_path, sequence):
    device = HeldVersion(tmp_path / "held", BUNDLE)
    for n, error in enumerate(sequence):
        coordinator = Coordinator(settings_for(tmp_path / "x.db", downlink=error))
        for i in range(2):
            task = run_round(coordinator, 2 * n + i)
            found = device.fetch(Served(coordinator).remote(), task)
            np.testing.assert_array_equal(
                flat(found), flat(read_tensors(coordinator.shelf.parameters(task.base_version)))
            )
        coordinator.close()


def test_bundle_converted_anew_is_served_as_the_rounds_began(tmp_path):
    coordinator = Coordinator(settings_for(tmp_path / "x.db"))
    run_round(coordinator, 1)
    coordinator.close()
    other = BUNDLE.with_parameters({n: v * 2 for n, v in BUNDLE.parameters().items()}, 7).to_bytes()
    coordinator = Coordinator(replace(settings_for(tmp_path / "x.db"), bundle=other))
    task, served = run_round(coordinator, 2), Served(coordinator)

    found = HeldVersion(tmp_path / "held", coordinator.bundle).fetch(served.remote(), task)

    assert coordinator.bundle.manifest.model_version == 0 and served.paths == ["/v1/parameters/1/from/0"]
    np.testing.assert_array_equal(flat(found), flat(read_tensors(coordinator.shelf.parameters(1))))
    coordinator.close()


def test_nothing_that_was_rounded_away_is_lost():
    dice = np.random.default_rng(5)
    standing = Standing.first(dice.normal(size=2000).astype(np.float32))
    wanted = standing.weights().astype(np.float64)
    for n in range(40):
        before = wanted - standing.weights()
        step = dice.laplace(size=2000) * 0.9**n
        wanted += step
        made, standing = publish(standing, step, 0.05)

        rest = wanted - standing.weights()
        np.testing.assert_allclose(standing.remainder, rest, rtol=1e-5, atol=1e-6)
        difference = before + step
        assert made.moves.any() and float(rest @ rest) <= 0.051 * float(difference @ difference)


@given(st.integers(0, 1000), st.sampled_from([0.2, 0.05, 0.01, 0.001]), st.sampled_from([1.0, 0.02]))
@settings(max_examples=50, deadline=None)
def test_error_is_what_was_asked_for(seed, error, density):
    dice = np.random.default_rng(seed)
    step = dice.laplace(size=3000) * (dice.random(3000) < density)
    if not step.any():
        return
    made, _ = publish(Standing.first(np.zeros(3000, np.float32)), step, error)

    rest = step - made.moves
    assert float(rest @ rest) <= error * float(step @ step) * 1.0001
    unit, _ = choose(step, error, 2.0**-100)
    assert unit >= made.unit and np.array_equal(np.rint(made.moves / unit), made.moves / unit)


def test_zero_step_publishes_nothing():
    made, after = publish(Standing.first(np.ones(9, np.float32)), np.zeros(9), 0.03)

    assert not made.moves.any() and not after.remainder.any()


def test_step_that_overflows_leaves_devices_where_they_are(tmp_path):
    coordinator = Coordinator(settings_for(tmp_path / "x.db"))
    line, base = coordinator.shelf.line, coordinator._store.newest_version()

    made = line._moved(base, np.zeros(SCHEMA.size), b"")
    broken = replace(line, aggregator=Chain(Mean(), averaging(1e38)))
    big = encode(np.ones(SCHEMA.size, np.float32), schema_id=SCHEMA.id, base_version=0, density=0.3)
    update = Contribution(Checks.passed(coordinator.bundle.schema(), big.frame).decode(big.frame, 0), 1.0)
    stuck, _ = broken.next_version(base, Gathered(SCHEMA.size, lambda: iter([update])))

    assert stuck.parameters == made.parameters
    assert stuck.publication.fingerprint == fingerprint(SCHEMA.flatten(read_tensors(made.parameters)))
    coordinator.close()


def test_examples_count_up_to_a_limit(tmp_path):
    options = {"goal": 2, "max_examples": 30, "downlink": 0.0}
    coordinator = Coordinator(settings_for(tmp_path / "x.db", **options))
    for name, examples, value in (("honest", 10, 0.0), ("boasting", 2**31 - 1, 1.0)):
        task = coordinator.check_in(CheckIn(name, SCHEMA.id.hex(), "test", examples)).task
        vector = np.full(SCHEMA.size, value, np.float32)
        frame = encode(vector, schema_id=SCHEMA.id, base_version=0, density=0.3).frame
        coordinator.accept(1, task.assignment, frame)
    coordinator.tick()

    moved = SCHEMA.flatten(read_tensors(coordinator.shelf.parameters(1))) - SCHEMA.flatten(
        BUNDLE.parameters()
    )
    assert moved.max() == pytest.approx(0.75)
    coordinator.close()


def test_restarts_while_devices_follow(tmp_path):
    """Server and device both restart at random; the device always holds what the server thinks it does."""
    dice = random.Random(3)
    coordinator = Coordinator(settings_for(tmp_path / "x.db", rounds=40))
    device = HeldVersion(tmp_path / "held", BUNDLE)
    for n in range(39):
        task = run_round(coordinator, n)
        if dice.random() < 0.3:
            coordinator.close()
            coordinator = Coordinator(settings_for(tmp_path / "x.db", rounds=40))
        if dice.random() < 0.3:
            device = HeldVersion(tmp_path / "held", BUNDLE)
        if dice.random() < 0.4:
            found = device.fetch(Served(coordinator).remote(), task)
            expected = read_tensors(coordinator.shelf.parameters(task.base_version))
            np.testing.assert_array_equal(flat(found), flat(expected))
    coordinator.close()


def test_steps_of_nothing_bind_none_of_those_to_come():
    standing = Standing.first(np.zeros(4, np.float32))
    void, after = publish(standing, np.zeros(4), 0.03)

    _, moved = publish(after, np.array([0.5, -0.25, 0.0, 1.0]), 0.0)

    assert not void.moves.any() and after.finest == standing.finest
    np.testing.assert_array_equal(moved.weights(), [0.5, -0.25, 0.0, 1.0])


@pytest.mark.parametrize("first", [0.0, 1e-40, 1e-28])
def test_model_of_zeros_learns_after_a_round_without_news(first):
    start = np.zeros(SCHEMA.size, np.float32)
    line = replace(_line(start), error=0.03)
    base = Version(0, write_tensors(SCHEMA.unflatten(start)), write_tensors({}))
    wanted = np.zeros(SCHEMA.size)
    for number, size in enumerate([first, 1.0, 0.5], 1):
        wanted[:] += size
        base, _ = line.next_version(base, _one_update(np.full(SCHEMA.size, size, np.float32), number - 1))

    held = SCHEMA.flatten(read_tensors(base.parameters))

    assert base.number == 3
    # At most `error` of the last step, in squared length, may still wait.
    assert np.linalg.norm(held - wanted) <= 0.03**0.5 * np.linalg.norm(np.full(SCHEMA.size, 0.5)) * 1.01


def test_steps_beyond_exact_sums_start_again_from_the_first_version(tmp_path):
    start = np.zeros(SCHEMA.size, np.float32)
    line = replace(_line(start), error=0.03)
    base = Version(0, write_tensors(SCHEMA.unflatten(start)), write_tensors({}))
    base, _ = line.next_version(base, _one_update(np.full(SCHEMA.size, 1e-28, np.float32), 0))

    made, _ = line.next_version(base, _one_update(np.full(SCHEMA.size, 1.0, np.float32), 1))

    assert base.publication.link.base == 0 and made.publication.link.base == 0
    total = np.zeros(SCHEMA.size)
    for update in decode_moves(
        made.publication.link.frame, schema_id=SCHEMA.id, size=SCHEMA.size, versions=(0,)
    ):
        total[update.indices] += update.values
    assert fingerprint(weights(start, total)) == made.publication.fingerprint


def _line(start) -> Line:
    return Line(SCHEMA, 0, start, Chain(Mean(), averaging()), 0.03)


def _one_update(vector, version) -> Gathered:
    frame = encode(vector, schema_id=SCHEMA.id, base_version=version, mode="float32").frame
    update = Checks.passed(SCHEMA, frame).decode(frame, version)
    return Gathered(SCHEMA.size, lambda: iter([Contribution(update, 1.0)]))
