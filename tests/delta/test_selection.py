# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgefl.delta.bits import Array
from edgefl.delta.selection import top_k
from edgefl.errors import NotFinite

ROUGH = arrays(np.float32, st.integers(1, 200), elements=st.floats(-4, 4, width=16))


def by_sorting(vector: Array, k: int) -> list[int]:
    """Stable sort by falling magnitude: ties in order of index."""
    order = np.argsort(-np.abs(vector), kind="stable")[:k]
    return sorted(int(i) for i in order if vector[i] != 0)


@given(ROUGH, st.integers(1, 250))
def test_selection_equals_a_stable_sort(vector: Array, k: int) -> None:
    indices, values = top_k(vector, k)

    assert indices.tolist() == by_sorting(vector, k)
    assert np.array_equal(values, vector[indices])


@pytest.mark.parametrize("shape", ["laplace", "rows", "equal", "zeros", "rising"])
@pytest.mark.parametrize("k", [1, 17, 3000, 60_000, 299_999])
def test_selection_is_exact_whatever_the_sample_says(shape: str, k: int) -> None:
    size, rng = 300_000, np.random.default_rng(5)
    vector = {
        "laplace": rng.laplace(size=size),
        "rows": np.tile([100, *[1e-3] * 63], size // 64 + 1)[:size],
        "equal": np.full(size, 0.5),
        "zeros": np.where(rng.random(size) < 1e-4, rng.normal(size=size), 0),
        "rising": np.arange(size) - 1000,
    }[shape].astype(np.float32)

    indices, values = top_k(vector, k)

    assert indices.tolist() == by_sorting(vector, k)
    assert np.array_equal(values, vector[indices])


def test_one_value_among_many_is_found() -> None:
    vector = np.zeros(1_000_000, np.float32)
    vector[777_777] = -1e-40

    assert top_k(vector, 10_000)[0].tolist() == [777_777]


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e38])
@pytest.mark.parametrize("size", [100, 500_000])
def test_what_is_not_finite_cannot_hide(bad: float, size: int) -> None:
    vector = np.random.default_rng(0).normal(size=size).astype(np.float32)
    vector[size // 2] = bad

    with pytest.raises(NotFinite, match=f"index {size // 2}"):
        top_k(vector, 5)
