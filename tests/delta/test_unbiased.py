# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from edgefl.delta import encode
from edgefl.delta.bits import Array
from edgefl.delta.unbiased import stochastic_round, unit_for

ID = b"schema-8"


def expected_nonzeros(vector: Array, unit: float) -> float:
    return float(np.minimum(np.abs(vector.astype(np.float64)) / unit, 1).sum())


def noise(vector: Array, unit: float) -> float:
    part = np.abs(vector.astype(np.float64)) / unit % 1
    return unit**2 * float((part * (1 - part)).sum()) / float((vector.astype(np.float64) ** 2).sum())


def samples() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    return {
        "laplace": rng.laplace(size=200_000).astype(np.float32),
        "heavy": (rng.standard_t(1.5, 200_000) * 1e-3).astype(np.float32),
        "small": rng.normal(size=50).astype(np.float32),
        "mostly zero": np.where(rng.random(150_000) < 0.02, rng.normal(size=150_000), 0).astype(np.float32),
        "tiny values": (rng.laplace(size=10_000) * 1e-30).astype(np.float32),
        "huge values": (rng.laplace(size=10_000) * 1e30).astype(np.float32),
    }


@pytest.mark.parametrize("name", sorted(samples()))
@pytest.mark.parametrize("density", [0.001, 0.01, 0.2])
def test_the_unit_leaves_the_nonzeros_wanted_and_knows_its_noise(name: str, density: float) -> None:
    vector = samples()[name]
    k = min(density * vector.size, 0.9 * np.count_nonzero(vector))

    unit, nmse = unit_for(vector, k)

    assert expected_nonzeros(vector, unit) == pytest.approx(k, rel=1e-3)
    assert nmse == pytest.approx(noise(vector, unit), rel=1e-3)


@pytest.mark.parametrize("limit", [5.0, 1.0, 0.01])
def test_the_guard_shrinks_the_unit_no_more_than_needed(limit: float) -> None:
    vector = samples()["laplace"]

    unit, nmse = unit_for(vector, 200, nmse_limit=limit)

    assert nmse <= limit * (1 + 1e-6)
    assert noise(vector, unit) == pytest.approx(nmse, rel=1e-3)
    assert nmse > 0.9 * limit


def test_the_guard_leaves_quiet_updates_alone() -> None:
    vector = samples()["heavy"]

    assert unit_for(vector, 2000, nmse_limit=1e6) == unit_for(vector, 2000)


def test_the_mean_over_many_draws_is_the_vector() -> None:
    vector = np.random.default_rng(0).standard_t(3, 3000).astype(np.float32)
    draws = 3000
    total = np.zeros(vector.size)
    unit, _ = unit_for(vector, 300)

    for seed in range(draws):
        rounded = stochastic_round(vector, unit, np.random.default_rng(seed))
        total[rounded.indices] += rounded.multiples * unit

    part = np.abs(vector) / unit % 1
    deviation = unit * np.sqrt(part * (1 - part) / draws)
    scores = (total / draws - np.abs(vector)) / np.maximum(deviation, 1e-9)
    assert np.abs(scores).max() < 6
    assert abs(scores.mean()) < 0.1
    assert scores.std() == pytest.approx(1, abs=0.1)


def test_rounding_lands_on_one_of_the_two_neighbours() -> None:
    vector = np.random.default_rng(0).standard_t(2, 100_000).astype(np.float32)

    encoded = encode(vector, schema_id=ID, base_version=0, mode="unbiased", rng=1)

    unit = unit_for(vector, 1000)[0]
    error = np.abs(encoded.dense().astype(np.float64) - vector)
    assert error.max() <= unit * (1 + 1e-6)
    assert len(encoded.indices) == pytest.approx(1000, rel=0.15)
    assert np.all(encoded.values * vector[encoded.indices] > 0)


def test_more_nonzeros_than_there_are_keep_every_nonzero() -> None:
    vector = np.zeros(1000, np.float32)
    vector[::100] = [1, -2, 3, -4, 5, -6, 7, -8, 9, -10]

    encoded = encode(vector, schema_id=ID, base_version=0, mode="unbiased", density=0.5, rng=1)

    assert np.array_equal(encoded.dense(), vector)
