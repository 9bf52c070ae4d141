# SPDX-License-Identifier: Apache-2.0
"""`edgefl bench payload --train`: what is trained, kept, counted and told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl import Bundle, Trainer
from edgefl.cli.payload import training
from edgefl.cli.payload.journal import Journal, complete
from edgefl.cli.payload.plan import HTTP_DOWN, HTTP_UP
from edgefl.cli.payload.runs import DENSE, LAST, WAYS, Curve, Run, Way, coder, grid, quick_grid
from edgefl.cli.payload.sockets import Overhead, measure
from edgefl.cli.payload.summary import Setting, rows, verdicts
from edgefl.data import Examples
from edgefl.delta import STATELESS_MODES
from edgefl.errors import DataError
from edgefl.options import CodingOptions
from edgefl.runtime.update import encode_update
from edgefl.simulation import Plan, simulate
from edgefl.wire import Training
from tests.cli.commands import Command

pytestmark = pytest.mark.device
TRAINING = Training.of(epochs=2, steps=3, lr=0.1)


def examples(count: int, seed: int) -> Examples:
    random = np.random.default_rng(seed)
    return Examples(random.normal(size=(count, 6)).astype(np.float32), random.integers(0, 3, count, np.int32))


def curve(run: Run, final: float, frame: float = 1000.0, *, diverged: bool = False) -> Curve:
    pairs = tuple((number, final) for number in range(1, LAST + 1))
    return Curve(run.key, 100_000, pairs, (frame,) * LAST, diverged, 1.0)


def a_run(way: Way, seed: int) -> Run:
    return Run("digits", way, True, False, seed, LAST)


def test_dense_float32_is_federated_averaging(mlp: Path) -> None:
    bundle = Bundle.open(mlp)
    devices = {"a": examples(24, 1), "b": examples(40, 2)}

    training = Training(TRAINING.fit, CodingOptions(mode="float32"))
    plan = Plan(rounds=1, training=training, downlink=0)
    final = simulate(bundle, devices, plan, backend="numpy", code=coder(DENSE)).bundle

    total = {p.name: np.zeros(p.shape) for p in bundle.schema().parameters}
    for mine in devices.values():
        trainer = Trainer(bundle, "numpy")
        trainer.fit(mine.x, mine.y, epochs=2, steps=3, lr=0.1, seed=TRAINING.fit.seed)
        for name, value in trainer.delta().items():
            total[name] += len(mine.y) / 64 * value.astype(np.float64)
    for name, step in total.items():
        np.testing.assert_allclose(
            final.parameters()[name], bundle.parameters()[name] + step, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("way", [w for w in WAYS if w.mode not in ("float32",)], ids=lambda way: way.name)
def test_updates_are_those_that_devices_send(mlp: Path, way: Way) -> None:
    schema = Bundle.open(mlp).schema()
    delta = np.random.default_rng(3).laplace(size=schema.size).astype(np.float32)
    asked = CodingOptions(mode=way.mode, density=way.density)
    options = {"seed": 9, "schema": schema, "base_version": 4, "device": "a", "cohort": 10}

    real, kept = encode_update(delta, asked, **options)
    mine, left = coder(replace(way, noise=WAYS[1].noise))(delta, asked, **options)

    np.testing.assert_array_equal(mine.dense(), real.dense())
    assert (left is None) == (kept is None) == (way.mode in STATELESS_MODES)


def test_grid_has_every_mode_in_every_setting_and_seed() -> None:
    runs = grid()

    assert len({run.key for run in runs}) == len(runs)
    assert sum(run.cohort == 10 for run in runs) == len(WAYS) * 3 * 3 * 2 * 2
    assert {run.way for run in runs if run.cohort == 10} == set(WAYS)
    assert {run.task for run in quick_grid()} == {run.task for run in runs}


def test_journal_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [a_run(way, 0) for way in WAYS[:3]]
    trained: list[str] = []

    def execute(run: Run) -> Curve:
        trained.append(run.key)
        return curve(run, 0.5)

    monkeypatch.setattr("edgefl.cli.payload.journal.execute", execute)
    path = tmp_path / "runs.jsonl"
    complete(Journal(path), runs[:2], lambda done: None)
    with path.open("a") as file:
        file.write('{"key": "cut o')

    curves = complete(Journal(path), runs, lambda done: None)

    assert trained == [run.key for run in runs]
    assert [c.key for c in curves] == trained
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == trained


def test_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text('{"key": "a"}\n')

    with pytest.raises(DataError, match=r"runs\.jsonl is no curve"):
        Journal(path)


def test_points_are_lost_to_the_same_seed_and_bytes_include_http() -> None:
    way = Way("unbiased", 0.001)
    done = [(a_run(DENSE, s), curve(a_run(DENSE, s), 0.9 + 0.01 * s, 400_000)) for s in (0, 1)]
    done += [(a_run(way, s), curve(a_run(way, s), 0.89 + 0.02 * s)) for s in (0, 1)]

    dense, sparse = rows(done, {"unbiased": Overhead(250.0, 800.0)})

    assert dense.lost == 0 and dense.times_fewer == pytest.approx(400_000 / 400_250)
    assert sparse.accuracy == pytest.approx(90.0) and sparse.lost == pytest.approx(0.5)
    assert sparse.lost_spread == pytest.approx(0.5)
    assert sparse.bytes_up == 1250 and sparse.times_fewer == 320
    assert sparse.curve()[-1] == (LAST, pytest.approx(90.0))


def test_goals_take_the_way_that_saves_enough_and_loses_least() -> None:
    ways = {Way("unbiased", 0.01): (0.897, 1000), Way("unbiased", 0.001): (0.88, 200)}
    done = [(a_run(DENSE, 0), curve(a_run(DENSE, 0), 0.9, 400_000))]
    done += [(a_run(w, 0), curve(a_run(w, 0), final, frame)) for w, (final, frame) in ways.items()]

    first, second = verdicts(rows(done, {}))

    assert (first.times, first.way, first.reached) == (300, "unbiased 1 %", True)
    assert (second.times, second.way, second.reached) == (900, "unbiased 0.1 %", False)
    assert second.lost == 2.0 and second.setting == Setting("digits", True, False)


def test_a_run_that_diverged_counts_as_nothing_learned() -> None:
    way = Way("unbiased", 0.001)
    done = [(a_run(DENSE, 0), curve(a_run(DENSE, 0), 0.9))]
    done += [(a_run(way, 0), curve(a_run(way, 0), 0.9, 10.0, diverged=True))]

    row = rows(done, {})[1]

    assert (row.accuracy, row.lost, row.diverged) == (0, pytest.approx(90), 1)
    assert not any(v.reached for v in verdicts([row]))


def test_http_overhead_is_what_a_real_server_counts(mlp: Path, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    bundle = Bundle.open(mlp)
    devices = {"a": examples(16, 1), "b": examples(16, 2)}

    found = measure(Way("unbiased", 0.1), bundle, devices, tmp_path / "federation")

    # The figures that the payload table assumes. Over 19 rounds of two updates, three check-ins in vain more
    # or less are 20 bytes each; numbers in messages have a few digits more or less.
    assert found.up == pytest.approx(HTTP_UP, abs=40)
    assert found.down == pytest.approx(HTTP_DOWN, abs=40)


def test_train_tells_draws_and_keeps(call: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("edgefl.cli.payload.journal.execute", lambda run: curve(run, 0.8))
    monkeypatch.setattr(training, "measured_overheads", lambda ways: {"unbiased": Overhead(500.0, 800.0)})

    found = call("bench", "payload", "--train", "--quick", "--out", "kept", "--json").json()
    ran = call("bench", "payload", "--train", "--quick", "--out", "kept")

    assert found["runs"] == 12 and {row["task"] for row in found["rows"]} == {"digits", "watch", "words"}
    assert (tmp_path / found["pictures"][0]).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "kept" / "curves.json").read_text())["rows"] == found["rows"]
    assert ran.status == 0 and "digits (MLP 784-512-10), different data, 10 of 100" in ran.out
