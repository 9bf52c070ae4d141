# SPDX-License-Identifier: Apache-2.0
"""Simulated devices that lie: who they are, what they do, and that robust rules bear it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.errors import DataError, OptionError
from edgefl.simulation import Plan, divide, simulate
from edgefl.simulation.attacks import Attack
from edgefl.wire import Training

MODEL = Path(__file__).parent.parent / "fixtures" / "mlp.edgefl"
NAMES = [f"d{i}" for i in range(10)]


def examples(count, seed=0):
    dice = np.random.default_rng(seed)
    y = dice.integers(0, 3, count)
    centers = 2 * np.random.default_rng(0).standard_normal((3, 6))
    return Examples((centers[y] + dice.standard_normal((count, 6))).astype(np.float32), y)


def accuracy(**options):
    training = Training.of(lr=0.2, epochs=2, mode="float32")
    plan = Plan(rounds=6, training=training, seed=1, **options)
    test = examples(300, seed=1)
    done = simulate(Bundle.open(MODEL), divide(examples(400), 10), plan, test=test, backend="numpy")
    return done.rounds[-1].accuracy


def test_the_seed_says_who_lies():
    one, again, other = (
        Attack.of(Plan(attack="sign-flip", attackers=0.3, seed=seed), NAMES) for seed in (0, 0, 1)
    )

    assert one == again and one.names != other.names
    assert len(one.names) == len(other.names) == 3 and one.names < set(NAMES)


@pytest.mark.parametrize(
    ("attack", "factor", "labels"),
    [("sign-flip", -1, False), ("scale:10", 10, False), ("scale:-2.5", -2.5, False), ("label-flip", 1, True)],
)
def test_attacks_by_name(attack, factor, labels):
    made = Attack.of(Plan(attack=attack), NAMES)

    assert (made.factor, made.labels, len(made.names)) == (factor, labels, 2)


@pytest.mark.parametrize("attack", ["flip", "scale", "scale:", "scale:x", "sign-flip:2"])
def test_other_attacks_are_refused(attack):
    with pytest.raises(OptionError, match="attack="):
        Plan(attack=attack)


def test_without_an_attack_nobody_lies():
    assert not Attack.of(Plan(attackers=0.5), NAMES).names


def test_labels_flip_on_those_that_lie_alone():
    data = {name: examples(20, seed) for seed, name in enumerate(NAMES)}
    bundle = Bundle.open(MODEL)

    made = Attack(frozenset({"d3"}), labels=True).examples(data, bundle)

    np.testing.assert_array_equal(made["d3"].y, 2 - data["d3"].y)
    assert all(made[name] is data[name] for name in NAMES if name != "d3")
    with pytest.raises(DataError, match="class labels"):
        wrong = {"d3": Examples(data["d3"].x, data["d3"].x)}
        Attack(frozenset({"d3"}), labels=True).examples(wrong, bundle)


@pytest.mark.parametrize("attack", ["scale:-10", "scale:-100"])
def test_lies_ruin_the_plain_mean_and_not_the_bounded_or_robust_one(attack):
    honest = accuracy()

    assert honest > 0.85
    assert accuracy(attack=attack, norm_bound=0.0) < 0.6
    for rule in ("mean", "median", "trimmed-mean", "multi-krum", "geometric-median"):
        assert accuracy(attack=attack, aggregator=rule) > honest - 0.05
