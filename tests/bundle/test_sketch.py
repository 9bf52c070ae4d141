# SPDX-License-Identifier: Apache-2.0
"""What a few numbers per array tell of another array."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.sketch import (
    COLUMNS,
    TOLERANCES,
    decode,
    described,
    difference,
    encode,
    loosened,
    sketch,
    tolerance_for,
)

pytestmark = pytest.mark.device
F32 = TOLERANCES["float32"]


def excess(expected: dict[str, np.ndarray], made: dict[str, np.ndarray], tolerance: float = F32) -> float:
    names = list(expected)
    return difference(decode(encode(sketch(expected), names), names), made, tolerance).excess


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20))
def test_equal_results_are_no_distance_apart(values: list[float]) -> None:
    array = np.array(values, np.float32)

    assert excess({"a": array}, {"a": array.copy()}) == 0


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("times", "right"), [(0.3, True), (5.0, False)])
@pytest.mark.parametrize("size", [1, 1000, 4096, 1_500_000])
def test_the_allowed_distance_is_relative_to_the_size(
    dtype: str, times: float, right: bool, size: int
) -> None:
    random = np.random.default_rng(0)
    expected = random.normal(size=size).astype(np.float32)
    noise = random.normal(size=size)
    noise *= times * TOLERANCES[dtype] * np.linalg.norm(expected) / np.linalg.norm(noise)
    for scale in (1e-6, 1.0, 1e6):
        made = (scale * (expected + noise)).astype(np.float32)
        found = excess({"a": (scale * expected).astype(np.float32)}, {"a": made}, TOLERANCES[dtype])
        assert (found <= 1) is right


@pytest.mark.parametrize("place", [0, 4095, 4096, 99_999])
def test_one_wrong_element_among_many_is_found(place: int) -> None:
    expected = np.ones(100_000, np.float32)
    made = expected.copy()
    made[place] = 2

    # One over the root of 100,000, against a tolerance of a ten-thousandth.
    assert excess({"a": expected}, {"a": made}) == pytest.approx(1e4 / math.sqrt(1e5), rel=1e-2)


def test_elements_that_changed_places_are_found() -> None:
    expected = np.random.default_rng(1).normal(size=(64, 200)).astype(np.float32)

    assert excess({"a": expected}, {"a": expected[::-1]}) > 1e3
    assert excess({"a": expected}, {"a": np.roll(expected, 1)}) > 1e3


def test_noise_beside_large_gradients_is_not_held_against_an_engine() -> None:
    expected = {"grad/big": np.ones(10, np.float32), "grad/noise": np.full(10, 1e-9, np.float32)}
    made = {"grad/big": np.ones(10, np.float32), "grad/noise": np.full(10, -1e-9, np.float32)}

    assert excess(expected, made) <= 1


def test_a_large_buffer_hides_no_wrong_gradient() -> None:
    expected = {"buffer/mean": np.full(10, 1e6, np.float32), "grad/w": np.ones(10, np.float32)}

    assert excess(expected, {**expected, "grad/w": 2 * expected["grad/w"]}) > 1e3


@pytest.mark.parametrize(
    "made", [{}, {"a": np.array([1, math.nan], np.float32)}, {"a": np.array([1, math.inf], np.float32)}]
)
def test_what_cannot_be_compared_is_wrong(made: dict[str, np.ndarray]) -> None:
    assert excess({"a": np.ones(2, np.float32)}, made, TOLERANCES["int8"]) == math.inf


def test_infinities_where_they_should_be_are_right() -> None:
    masked = np.array([1, -math.inf, 2], np.float32)

    assert excess({"a": masked}, {"a": masked}) == 0


def test_integers_are_exact_and_bytes_two_levels_off() -> None:
    for dtype, apart, right in [
        ("int32", 0, True),
        ("int32", 1, False),
        ("int8", 2, True),
        ("uint8", 5, False),
    ]:
        expected = np.full(4, 9, dtype)
        made = expected + np.asarray(apart, dtype)
        assert (excess({"a": expected}, {"a": made}, TOLERANCES["int8"]) <= 1) is right


def test_what_moves_with_rounding_is_held_to_less() -> None:
    expected = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    rows = sketch({"grad/w": expected})
    made = {"grad/w": expected * np.float32(1.0005)}

    loose = loosened({"grad/w": expected}, {"grad/w": expected * np.float32(1.001)})
    looser = loosened({"grad/w": expected}, {"grad/w": 3 * expected})

    assert difference(rows, made, F32).excess > 1 >= difference(loose, made, F32).excess
    assert difference(looser, {"grad/w": 1.1 * expected}, F32).excess > 1


def test_a_difference_names_the_output_and_the_distance() -> None:
    expected = np.ones(100, np.float32)

    found = difference(
        sketch({"loss": expected[0], "grad/w": expected}), {"loss": expected[0], "grad/w": 7 * expected}, F32
    )

    assert found.output == "grad/w"
    assert str(found) == "the gradient of 'w' is off by 6 times its norm, allowed 0.0001 times"
    assert described("buffer/m") == "the updated buffer 'm'"


def test_a_table_that_does_not_fit_is_refused() -> None:
    for table in (np.zeros((2, COLUMNS), np.float32), np.full((1, COLUMNS), np.nan, np.float32)):
        with pytest.raises(ValueError, match="a sketch of 1 outputs"):
            decode(table, ["a"])


def test_graphs_that_train_are_held_to_float32() -> None:
    assert tolerance_for("step", "float16") == TOLERANCES["float32"]
    assert tolerance_for("features", "float16") == TOLERANCES["float16"]
    assert tolerance_for("features-int8", "float32") == TOLERANCES["int8"]


def test_the_same_numbers_on_every_machine() -> None:
    row = sketch({"a": np.arange(5000, dtype=np.float32)})["a"]

    assert row.projections[:3] == (38936.0, -401226.0, -104074.0)
