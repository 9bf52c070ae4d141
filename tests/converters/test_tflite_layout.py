# SPDX-License-Identifier: Apache-2.0
"""Values with late layout: every operation on them is the operation on the logical tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

tf = pytest.importorskip("tensorflow")

from edgefl.converters.targets.lowering.broadcast import elementwise, spread  # noqa: E402
from edgefl.converters.targets.lowering.value import (  # noqa: E402
    Lazy,
    arranged,
    logical,
    permute,
    regrouped,
    trailing,
)

relaxed = settings(deadline=None, max_examples=60)


@st.composite
def values(draw: st.DrawFn, max_rank: int = 6) -> Lazy:
    """Distinct numbers in a random shape, held in a random axis order, by TensorFlow or by NumPy."""
    shape = draw(st.lists(st.sampled_from([1, 1, 2, 3, 4]), min_size=1, max_size=max_rank))
    order = draw(st.permutations(range(len(shape))))
    data = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    return Lazy(tf.constant(data) if draw(st.booleans()) else data, tuple(order))


def seen(value: Lazy) -> Any:
    """The logical tensor."""
    return np.asarray(value.data).transpose(value.order)


def factorings(total: int, rank: int) -> st.SearchStrategy[list[int]]:
    """Shapes of a rank with this many elements."""
    if rank == 1:
        return st.just([total])
    divisors = [n for n in range(1, total + 1) if total % n == 0]
    return st.sampled_from(divisors).flatmap(
        lambda n: factorings(total // n, rank - 1).map(lambda rest: [n, *rest])
    )


@relaxed
@given(values(), st.data())
def test_any_arrangement(value: Lazy, data: st.DataObject) -> None:
    order = tuple(data.draw(st.permutations(range(value.rank))))

    held = Lazy(arranged(value, order), order)

    np.testing.assert_array_equal(seen(held), seen(value))
    np.testing.assert_array_equal(np.asarray(logical(value)), seen(value))
    assert value.shape == seen(value).shape


@relaxed
@given(values(), st.data())
def test_permuting_is_transposing(value: Lazy, data: st.DataObject) -> None:
    permutation = tuple(data.draw(st.permutations(range(value.rank))))

    moved = np.asarray(permute(value.data, permutation))

    np.testing.assert_array_equal(moved, np.asarray(value.data).transpose(permutation))
    np.testing.assert_array_equal(seen(value.transposed(permutation)), seen(value).transpose(permutation))


@relaxed
@given(values(max_rank=5), st.data())
def test_regrouping_is_reshaping(value: Lazy, data: st.DataObject) -> None:
    shape = data.draw(factorings(value.size, data.draw(st.integers(1, 6))))

    made = regrouped(value, shape)

    np.testing.assert_array_equal(seen(made), seen(value).reshape(shape))


@relaxed
@given(values(), st.data())
def test_trailing_axes_come_last_in_memory(value: Lazy, data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(value.rank)))[: data.draw(st.integers(1, value.rank))]

    made = trailing(value, *axes)

    assert [made.order[axis] for axis in axes] == list(range(value.rank))[-len(axes) :]
    np.testing.assert_array_equal(seen(made), seen(value))


@relaxed
@given(values(), st.data())
def test_broadcasting_never_needs_more_than_four_axes(value: Lazy, data: st.DataObject) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=value.rank, max_size=value.rank))
    order = tuple(data.draw(st.permutations(range(value.rank))))
    small = seen(value)[tuple(slice(None) if kept else slice(1) for kept in keep)]
    other = Lazy(tf.constant(small.transpose(np.argsort(order))), order)
    ranks = []

    def product(a: Any, b: Any) -> Any:
        ranks.append(len(a.shape) if tuple(a.shape) != tuple(b.shape) else 0)
        return tf.multiply(a, b)

    made = elementwise(product, value, other)

    assert max(ranks) <= 4
    np.testing.assert_array_equal(seen(made), seen(value) * small)


@relaxed
@given(values(), st.data())
def test_spreading_is_broadcasting(value: Lazy, data: st.DataObject) -> None:
    shape = [n if n > 1 else data.draw(st.integers(1, 3)) for n in value.physical]

    made = np.asarray(spread(value.data, shape))

    np.testing.assert_array_equal(made, np.broadcast_to(np.asarray(value.data), shape))


def test_channel_last_images_flatten_without_a_transpose_where_they_may() -> None:
    image = Lazy(tf.zeros((2, 4, 5, 3)), (0, 3, 1, 2))

    merged = regrouped(image, (2, 3, 20))
    mixed = regrouped(image, (2, 60))

    assert merged.order == (0, 2, 1)
    assert mixed.order == (0, 1)
