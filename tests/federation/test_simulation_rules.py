# SPDX-License-Identifier: Apache-2.0
"""What a simulation does where devices cannot train, where they wait, and where the examples are unusual."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import DataError, DataShape, NotFinite, OptionError, ProtocolError
from edgefl.options import FitOptions
from edgefl.parameters import Schema
from edgefl.runtime import Trainer
from edgefl.runtime.held import Ways
from edgefl.runtime.personal import personalize
from edgefl.runtime.remote import Remote
from edgefl.runtime.update import encode_update
from edgefl.simulation import Plan, divide, simulate
from edgefl.simulation.turns import Turns
from edgefl.wire import Task, Training
from tests.fixtures.make import examples

pytestmark = pytest.mark.device

MLP = Bundle.open(Path(__file__).parents[1] / "fixtures" / "mlp.edgefl")
TRAINING = Training.of(lr=0.1, density=0.2)


def some(count: int, size: int = 16) -> dict[str, Examples]:
    return {f"d{i}": Examples(*examples(size, i)) for i in range(count)}


def failing(*names: str, after: int = 0) -> Any:
    """A coder with which some devices cannot send any update from a version on."""

    def code(*arguments: Any, **options: Any) -> Any:
        if options["device"] in names and options["base_version"] >= after:
            raise NotFinite("training gave nonsense")
        return encode_update(*arguments, **options)

    return code


def test_another_device_takes_the_place_of_one_that_declines() -> None:
    plan = Plan(rounds=3, training=TRAINING, cohort=2)
    done = simulate(MLP, some(5), plan, backend="numpy", code=failing("d1", "d3"), measure_devices=True)

    assert [row.devices for row in done.rounds] == [2, 2, 2]
    assert sum(row.declined for row in done.rounds) > 0
    assert {d.device: d.rounds for d in done.devices} | {"d1": 0, "d3": 0} == {
        d.device: d.rounds for d in done.devices
    }


def test_a_round_closes_with_its_minimum_where_nobody_is_left() -> None:
    done = simulate(
        MLP, some(4), Plan(rounds=2, training=TRAINING), backend="numpy", code=failing("d1", "d3")
    )

    assert [(row.devices, row.declined) for row in done.rounds] == [(2, 2), (2, 2)]
    assert done.bundle.manifest.model_version == 2


def test_a_round_that_never_fills_says_why() -> None:
    code = failing("d0", "d1", "d2", after=1)

    with pytest.raises(NotFinite, match="round 2 has 1 of at least 2 updates: training gave nonsense"):
        simulate(MLP, some(4), Plan(rounds=3, training=TRAINING), backend="numpy", code=code)


def test_a_version_is_decoded_once_whatever_devices_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 9 devices three take part, in another order each time: they hold different versions."""
    asked, decoded = list[str](), list[int]()
    way, moved = Remote.way, Ways._moved

    def asks(self: Remote, version: int, held: int, schema: Schema) -> bytes:
        asked.append(f"{version} from {held}")
        return way(self, version, held, schema)

    def moves(self: Ways, held: Any, steps: Any, task: Task) -> Any:
        decoded.append(task.base_version)
        return moved(self, held, steps, task)

    monkeypatch.setattr(Remote, "way", asks)
    monkeypatch.setattr(Ways, "_moved", moves)
    simulate(MLP, some(9, 8), Plan(rounds=12, training=TRAINING, cohort=3), backend="numpy")

    assert len(asked) == len(set(asked)) > 11
    assert decoded == list(range(1, 12))


def test_a_device_behind_is_led_to_the_newest_version() -> None:
    """Of 30 devices each waits 14 rounds: longer than steps are kept for."""
    done = simulate(
        MLP, some(30, 8), Plan(rounds=40, training=TRAINING, cohort=2), backend="numpy", measure_devices=True
    )

    counts = Counter(d.rounds for d in done.devices)
    assert counts == {2: 10, 3: 20}
    assert all(row.bytes_down > 0 for row in done.rounds)


def test_each_device_is_measured_with_the_final_version() -> None:
    devices = some(3)
    done = simulate(
        MLP,
        devices,
        Plan(rounds=2, training=TRAINING),
        test=devices["d1"],
        backend="numpy",
        measure_devices=True,
    )

    trainer = Trainer(done.bundle, "numpy")
    for row in done.devices:
        mine = trainer.evaluate(devices[row.device].x, devices[row.device].y)
        assert (row.loss, row.accuracy, row.examples) == (mine.loss, mine.accuracy, 16)
    assert (done.rounds[-1].test_loss, done.rounds[-1].accuracy) == (
        done.devices[1].loss,
        done.devices[1].accuracy,
    )


def test_the_device_whose_examples_do_not_fit_is_named() -> None:
    devices = {**some(2), "odd": Examples(np.zeros((4, 5), np.float32), np.zeros(4, np.int32))}

    with pytest.raises(DataShape, match="odd: 'x' has shape"):
        simulate(MLP, devices, Plan(rounds=1, training=TRAINING), backend="numpy")


def test_a_name_that_no_server_takes_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"CheckIn\.device is \"my watch\""):
        simulate(MLP, {"my watch": some(1)["d0"]}, Plan(rounds=1, training=TRAINING), backend="numpy")


@pytest.mark.parametrize("cohort", [0, 4])
def test_a_cohort_that_cannot_be_drawn(cohort: int) -> None:
    with pytest.raises(DataError, match=f"a cohort of {cohort} cannot be drawn from 3 devices"):
        simulate(MLP, some(3), Plan(rounds=1, training=TRAINING, cohort=cohort), backend="numpy")


def test_nobody_is_drawn_again_before_everybody_has_been() -> None:
    turns = Turns([f"d{i}" for i in range(7)], 3)

    drawn = [turns.cohort(3) for _ in range(14)]

    assert all(len(set(names)) == 3 for names in drawn)
    for upto in range(1, 15):
        counts = Counter(name for names in drawn[:upto] for name in names)
        assert max(counts.values()) - min(counts[f"d{i}"] for i in range(7)) <= 1


def test_everyone_is_asked_once_in_place_of_others() -> None:
    turns = Turns(["a", "b", "c", "d"], 0)
    asked = set(turns.cohort(2))

    while (name := turns.another(asked)) is not None:
        assert name not in asked
        asked.add(name)

    assert asked == {"a", "b", "c", "d"}


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.5"])
def test_division_of_several_arrays_and_weights(partition: str) -> None:
    random = np.random.default_rng(0)
    x = {"a": np.arange(60).reshape(60, 1), "b": random.normal(size=(60, 2))}
    y = {"price": random.normal(size=(60, 1)), "kind": random.integers(0, 3, 60)}
    weight = np.where(np.arange(60) < 10, 0, 1)

    parts = divide(Examples(x, y, weight), 5, partition, 1)

    numbers = np.concatenate([part.x["a"][:, 0] for part in parts.values()])
    assert len(set(numbers)) == len(numbers) and set(numbers) >= set(range(10, 60))
    for part in parts.values():
        rows = part.x["a"][:, 0]
        np.testing.assert_array_equal(part.x["b"], x["b"][rows])
        np.testing.assert_array_equal(part.y["kind"], y["kind"][rows])
        np.testing.assert_array_equal(part.y["price"], y["price"][rows])
        np.testing.assert_array_equal(part.weight, weight[rows])


def test_devices_with_nothing_that_counts_are_left_out() -> None:
    weight = np.zeros(6)
    weight[2] = 1

    parts = divide(Examples(np.zeros((6, 1)), np.zeros(6, int), weight), 6)

    assert len(parts) == 1 and next(iter(parts.values())).weight.tolist() == [1]


def test_division_by_class_needs_classes() -> None:
    values = Examples(np.zeros((6, 1)), {"price": np.zeros((6, 1))})

    with pytest.raises(DataError, match=r"one class label per example; price is float64\[6, 1\]"):
        divide(values, 2, "dirichlet:1")
    with pytest.raises(OptionError, match="dirichlet:ALPHA"):
        divide(Examples(values.x, np.zeros(6, int)), 2, "dirichlet:0")


def test_devices_make_models_of_their_own_as_real_ones_do() -> None:
    """What a device does is `personalize` on what it pulled; here are both."""
    fit = {"lr": 0.2, "momentum": 0.5, "seed": 3}
    devices, later = some(3, 60), {"d1": Examples(*examples(20, 9))}
    plan = Plan(rounds=2, training=Training.of(density=0.2, steps=2, **fit), personalize=4)

    done = simulate(MLP, devices, plan, backend="numpy", later=later)

    rows = {row.device: row for row in done.devices}
    for name, mine in devices.items():
        trainer = Trainer(done.bundle, "numpy")
        chosen = personalize(trainer, mine, FitOptions(epochs=4, **fit))
        own = rows[name].personal
        assert own is not None
        assert (own.kind, own.share, own.tried) == (chosen.kind, chosen.share, chosen.tried)
        assert own.steps == chosen.steps > 4 and own.chosen.share == own.share
        found = trainer.evaluate(later["d1"].x, later["d1"].y)
        assert name != "d1" or found == next(t.metrics for t in own.later if t.share == own.share)
    assert [len(rows[name].personal.later) for name in sorted(rows)] == [0, 5, 0]  # type: ignore[union-attr]


def test_a_device_with_too_little_to_hold_out_keeps_the_model_of_all() -> None:
    devices = {"d0": Examples(*examples(1, 0)), "d1": Examples(*examples(40, 1))}

    done = simulate(MLP, devices, Plan(rounds=1, training=TRAINING, personalize=2), backend="numpy")

    assert [row.personal is None for row in done.devices] == [True, False]
