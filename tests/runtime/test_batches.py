# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.runtime.batches import Batches

pytestmark = pytest.mark.device


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
def test_every_example_comes_once_and_the_rest_weighs_nothing(count: int, size: int, seed: int) -> None:
    arrays = {"x": np.arange(count * 2).reshape(count, 2), "weight": np.ones(count, np.float32)}
    order = np.random.Generator(np.random.PCG64(seed)).permutation(count)
    batches = Batches(arrays, size)

    seen, total = [], 0.0
    for feeds, real in batches(order):
        assert feeds["x"].shape == (size, 2)
        assert not feeds["weight"][real:].any()
        seen += feeds["x"][:real, 0].tolist()
        total += feeds["weight"].sum()

    assert seen == (order * 2).tolist()
    assert total == count
    assert len(batches) == -(-count // size)


def test_weights_of_earlier_batches_do_not_leak() -> None:
    batches = Batches({"weight": np.ones(3, np.float32)}, 2)

    for _ in range(2):
        assert [feeds["weight"].tolist() for feeds, _ in batches()] == [[1, 1], [1, 0]]
