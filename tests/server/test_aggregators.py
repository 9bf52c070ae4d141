# SPDX-License-Identifier: Apache-2.0
"""Aggregation rules against SciPy and the papers' formulas, and what holds for all of them."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.spatial.distance import cdist

from edgefl.delta import SparseDelta
from edgefl.errors import DataError, OptionError
from edgefl.options import AGGREGATORS, SHARED_MODES, FederationOptions
from edgefl.server_stub.aggregators import Contribution, Gathered, aggregator
from edgefl.server_stub.aggregators.bounds import Bound
from edgefl.server_stub.aggregators.coordinates import Median, TrimmedMean, blocks
from edgefl.server_stub.aggregators.distances import GeometricMedian, Krum, embedded, squared_distances
from edgefl.server_stub.aggregators.mean import Mean, normalized, weighted_mean
from edgefl.server_stub.aggregators.optimizers import adaptive
from edgefl.wire import Training

ROBUST = {
    "median": Median(),
    "trimmed-mean": TrimmedMean(0.2),
    "krum": Krum(0.2),
    "multi-krum": Krum(0.2, several=True),
    "geometric-median": GeometricMedian(),
}
SHARED = Training.of(mode="float32")


def contribution(row, name="", weight=1.0, **meta):
    """The nonzeros of a row as an update."""
    row = np.asarray(row, np.float32)
    at = np.flatnonzero(row)
    return Contribution(SparseDelta(at, row[at], len(row), 0, meta=meta), weight, name)


def gathered(rows, weights=None, steps=None):
    weights, steps = weights or [1.0] * len(rows), steps or [None] * len(rows)
    made = [
        contribution(row, str(i), weight, **({} if told is None else {"steps": told}))
        for i, (row, weight, told) in enumerate(zip(rows, weights, steps, strict=True))
    ]
    return Gathered(len(rows[0]), lambda: iter(made))


def cohort(seed, count=9, size=40):
    """Honest updates around a common direction, some parameters of each unmoved."""
    dice = np.random.default_rng(seed)
    rows = 1 + dice.normal(size=(count, size))
    return np.where(dice.random((count, size)) < 0.2, 0, rows).astype(np.float32)


def run(options, rows, state=None, training=SHARED, **extra):
    made = aggregator(FederationOptions(**options), training)
    return made(gathered(rows, **extra), made.init(len(rows[0])) if state is None else state)


def test_median_is_numpys():
    rows = cohort(0)
    np.testing.assert_allclose(Median()(gathered(rows)), np.median(rows, axis=0), rtol=1e-12)


@pytest.mark.parametrize("count", [2, 5, 9, 10])
def test_trimmed_mean_is_scipys(count):
    rows, cut = cohort(1, count), {2: 0, 5: 1, 9: 2, 10: 2}[count]
    # SciPy rounds down what it cuts; asked for a little more than `cut` it cuts just that.
    expected = stats.trim_mean(rows.astype(np.float64), (cut + 0.01) / count, axis=0)

    np.testing.assert_allclose(TrimmedMean(0.2)(gathered(rows)), expected, rtol=1e-12)


def test_krum_takes_the_update_of_the_papers_score():
    rows = cohort(2, 10)
    lying, distances = 2, cdist(rows, rows, "sqeuclidean")
    scores = []
    for i in range(10):
        others = np.sort(np.delete(distances[i], i))
        scores.append(others[: 10 - lying - 2].sum())

    np.testing.assert_allclose(Krum(0.2)(gathered(rows)), rows[int(np.argmin(scores))], rtol=1e-12)
    best = np.argsort(scores)[: 10 - lying]
    several = Krum(0.2, several=True)(gathered(rows))
    np.testing.assert_allclose(several, rows[best].astype(np.float64).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_geometric_median_is_where_scipy_finds_the_least_sum_of_distances(seed):
    rows = cohort(seed, 7, 5).astype(np.float64)

    def far(point):
        return np.linalg.norm(rows - point, axis=1).sum()

    found = optimize.minimize(far, rows.mean(axis=0), method="BFGS", options={"gtol": 1e-10}).x
    made = GeometricMedian()(gathered(rows))

    np.testing.assert_allclose(made, found, atol=1e-5)
    assert far(made) <= far(found) * (1 + 1e-9)


def test_geometric_median_may_be_one_of_the_updates():
    rows = [[1, 1], [1, 1], [1, 1], [9, 0], [0, 7]]
    np.testing.assert_allclose(GeometricMedian()(gathered(rows)), [1, 1], rtol=1e-6)


def test_distances_are_scipys():
    rows = cohort(3)
    expected = cdist(rows, rows, "sqeuclidean")
    np.testing.assert_allclose(squared_distances(embedded(gathered(rows))), expected, rtol=1e-9, atol=1e-9)


def test_blocks_change_nothing():
    rows = cohort(4)
    whole = list(blocks(gathered(rows)))
    parts = list(blocks(gathered(rows), block_bytes=8 * len(rows) * 7))

    assert len(whole) == 1 and len(parts) == 6
    for column in (0, 1):
        joined = np.concatenate([part[column] for part in parts], axis=-1)
        np.testing.assert_array_equal(joined, whole[0][column])


@pytest.mark.parametrize("kind", ["adagrad", "adam", "yogi"])
def test_adaptive_optimizers_are_algorithm_2_of_their_paper(kind):
    lr, beta1, beta2, tau = 0.1, 0.9, 0.99, 1e-2
    means = np.random.default_rng(0).normal(size=(5, 8))
    made = adaptive(kind, lr, beta1, beta2, tau)
    state, m, v = made.init(8), np.zeros(8), np.full(8, tau**2)
    for mean in means:
        step, state = made.apply(mean, state)
        m = beta1 * m + (1 - beta1) * mean
        if kind == "adagrad":
            v = v + mean**2
        elif kind == "adam":
            v = beta2 * v + (1 - beta2) * mean**2
        else:
            v = v - (1 - beta2) * mean**2 * np.sign(v - mean**2)
        np.testing.assert_allclose(step, lr * m / (np.sqrt(v) + tau), rtol=1e-5)
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fednova_is_the_papers_normalized_averaging(momentum):
    rows, weights, steps = cohort(5, 4), [1.0, 2.0, 3.0, 2.0], [4, 10, 7, 4]
    shares = np.array(weights) / sum(weights)
    # ||a_i||_1 of SGD with momentum: what each step's gradient amounts to by the end, summed.
    reach = [sum(sum(momentum**k for k in range(left + 1)) for left in range(t)) for t in steps]
    directions = rows / np.array(reach)[:, None]
    expected = (shares @ reach) * (shares @ directions)

    training = Training.of(momentum=momentum)
    made = run(
        {"aggregator": "fednova", "norm_bound": 0.0}, rows, None, training, weights=weights, steps=steps
    )

    np.testing.assert_allclose(made.step, expected, rtol=1e-6)


def test_fednova_of_equal_steps_is_the_mean_and_believes_no_wonders():
    rows = cohort(6, 4)
    plain = weighted_mean(gathered(rows), 40)

    for steps in ([5, 5, 5, 5], [5, 5, None, 5], [None] * 4, [5, 5, True, 5], [5, 5, "many", 5]):
        np.testing.assert_allclose(Mean()(normalized(gathered(rows, steps=steps))), plain, rtol=1e-12)
    lied = Mean()(normalized(gathered(rows, steps=[5, 5, 5, 2**30])))
    assert np.linalg.norm(lied) < 4 * np.linalg.norm(plain)


@pytest.mark.parametrize("rule", AGGREGATORS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_order_of_updates_changes_nothing_that_matters(rule, seed):
    rows = cohort(seed)
    order = np.random.default_rng(seed).permutation(len(rows))

    one, other = (run({"aggregator": rule}, part).step for part in (rows, rows[order]))

    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rule", AGGREGATORS)
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_of_equal_updates_comes_that_update(rule, count):
    row = cohort(7)[0]
    made = run({"aggregator": rule}, [row] * count)

    np.testing.assert_allclose(made.step, row, rtol=1e-6)
    assert not made.verdicts


@pytest.mark.parametrize("rule", AGGREGATORS)
@pytest.mark.parametrize("count", [1, 4])
def test_updates_that_move_nothing_give_no_step(rule, count):
    assert not run({"aggregator": rule}, np.zeros((count, 6))).step.any()


@pytest.mark.parametrize("rule", AGGREGATORS)
def test_no_updates_are_refused(rule):
    made = aggregator(FederationOptions(aggregator=rule), SHARED)
    with pytest.raises(DataError, match="no updates"):
        made(Gathered(3, lambda: iter(())), made.init(3))


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("lie", [-1.0, -100.0, 1e30])
@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_robust_rules_stay_among_the_honest(rule, lie, seed):
    """Two of ten lie, together and as far away as they like: the step is no further from the honest mean
    than the honest updates themselves are."""
    rows = cohort(seed, 10)
    honest = rows[2:].astype(np.float64)
    rows[:2] = lie * (1 + np.abs(rows[:2]))

    step = ROBUST[rule](gathered(rows))

    center = honest.mean(axis=0)
    assert np.linalg.norm(step - center) <= np.linalg.norm(honest - center, axis=1).max()


@pytest.mark.parametrize(("rule", "most"), [("median", 4), ("geometric-median", 4), ("trimmed-mean", 2)])
def test_rules_break_just_where_they_must(rule, most):
    """With so many liars of nine the step stays bounded however far they go; with one more it follows."""
    rows = cohort(8)

    def reached(lying):
        lied = rows.copy()
        lied[:lying] = 1e12
        return float(np.abs(ROBUST[rule](gathered(lied))).max())

    assert reached(most) < 100
    assert reached(most + 1) > 1e9


def test_a_round_that_does_not_fit_memory_is_gone_through_again():
    rows, calls = cohort(9), itertools.count()
    made = list(gathered(rows))

    def again():
        next(calls)
        return iter(made)

    large = Gathered(40, again, kept_bytes=100)
    np.testing.assert_array_equal(Median()(large), Median()(gathered(rows)))
    assert next(calls) == 2
    small = Gathered(40, again)
    Median()(small)
    assert next(calls) == 4


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("mode", ["topk", "ternary", "unbiased"])
def test_rules_that_compare_want_the_same_parameters_of_all(rule, mode):
    with pytest.raises(OptionError, match=f"zeros would win; {', '.join(SHARED_MODES)} send") as caught:
        aggregator(FederationOptions(aggregator=rule), Training.of(mode=mode))

    assert caught.value.given == {"aggregator": rule, "mode": mode}


@pytest.mark.parametrize("fit", [{"optimizer": "adam"}, {"mu": 0.1}, {"schedule": "cosine"}])
def test_fednova_is_refused_where_it_does_not_know_how_far_steps_reach(fit):
    with pytest.raises(OptionError, match="steps of SGD"):
        aggregator(FederationOptions(aggregator="fednova"), Training.of(**fit))


# -- bounds


def test_one_huge_update_is_set_aside_and_the_rest_counts():
    rows = cohort(10, 8)
    rows[3, 5] = 3e38

    made = run({}, rows)

    np.testing.assert_allclose(made.step, np.delete(rows, 3, 0).astype(np.float64).mean(axis=0), rtol=1e-6)
    assert list(made.verdicts) == ["3"]
    assert made.verdicts["3"].counted == 0 and made.verdicts["3"].reason.startswith("set aside: 3e+38 long")


def test_one_of_eight_scaled_by_800_moves_nothing():
    rows = cohort(11, 8)
    honest = rows[1:].astype(np.float64).mean(axis=0)
    rows[0] *= -800

    made = run({}, rows)

    np.testing.assert_allclose(made.step, honest, rtol=1e-6)


def test_a_longer_update_is_shortened_to_the_bound():
    rows = np.eye(6, dtype=np.float32)
    rows[2] *= 6

    made = run({}, rows, weights=[1.0, 1.0, 5.0, 1.0, 1.0, 1.0])

    expected = np.array([1, 1, 20, 1, 1, 1]) / 10
    np.testing.assert_allclose(made.step, expected)
    assert made.verdicts["2"].counted == pytest.approx(4 / 6)
    assert (
        made.verdicts["2"].reason == "shortened: 6 long, 6 times the round's median of 1, counted as 4 times"
    )


def test_what_is_within_the_bound_counts_bit_by_bit():
    rows = cohort(12)
    updates = gathered(rows)

    assert Bound(4.0)(updates) == (updates, {})
    np.testing.assert_array_equal(run({}, rows).step, run({"norm_bound": 0.0}, rows).step)


def test_updates_that_move_nothing_do_not_lower_the_bound():
    rows = cohort(13, 8)
    rows[:5] = 0

    assert not run({}, rows).verdicts


def test_of_two_the_shorter_one_is_the_yardstick():
    rows = cohort(14, 2)
    rows[1] = 1e37

    np.testing.assert_allclose(run({}, rows).step, rows[0])


def test_contributions_carry_their_scale():
    one = contribution([3.0, 0.0, 4.0])

    assert one.norm == 5 and replace(one, scale=0.5).norm == 2.5
    np.testing.assert_array_equal(replace(one, scale=0.5).values(), [1.5, 2.0])
