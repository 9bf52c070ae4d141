# SPDX-License-Identifier: Apache-2.0
"""Frozen weights in eight and four bits: exact in every orientation, and the same values on every engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets.compact import compact, nibbles
from edgefl.converters.weights import MIN_SIZE, check_bits, packed, round_weights
from edgefl.errors import ConversionError
from edgefl.graph import Graph, TensorType, read_onnx, run, write_onnx

F = np.dtype(np.float32)


def product(weight: Any, *, turned: bool = False) -> Graph:
    """`x` times a weight, and where `turned` times its transpose as another constant."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (4, weight.shape[0])))
    h = b.add("MatMul", x, b.constant(weight))
    if turned:
        h = b.add("MatMul", h, b.constant(np.ascontiguousarray(weight.T)))
    b.output("y", h)
    return b.build("product")


def weight(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rounded(value: Any, bits: int) -> Any:
    graph = round_weights(product(value), bits)
    return next(iter(graph.constants.values()))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(16, 70), st.integers(64, 100)),
    bits=st.sampled_from((8, 4)),
    scale=st.floats(1e-12, 1e12),
    seed=st.integers(0, 99),
)
def test_integers_come_back_exactly_from_rounded_weights(
    shape: tuple[int, int], bits: int, scale: float, seed: int
) -> None:
    value = rounded(weight(*shape, seed=seed) * np.float32(scale), bits)
    for turned in (value, np.ascontiguousarray(value.T)):
        found = packed(turned, bits)

        assert found is not None
        assert np.array_equal(found.value, turned)


@pytest.mark.parametrize(("bits", "limit"), [(8, 127), (4, 7)])
def test_rounding_moves_no_weight_by_more_than_half_a_step(bits: int, limit: int) -> None:
    before = weight(64, 96)
    step = np.abs(before).max() / limit

    assert np.abs(rounded(before, bits) - before).max() <= step / 2 * 1.001


def test_rounding_twice_changes_nothing() -> None:
    once = rounded(weight(64, 96), 8)

    assert np.array_equal(rounded(once, 8), once)


@pytest.mark.parametrize(("bits", "times"), [(8, 3.7), (4, 6.3)])
def test_packed_weights_are_that_much_smaller(bits: int, times: float) -> None:
    value = rounded(weight(128, 128), bits)
    found = packed(value, bits)

    assert found is not None
    assert value.nbytes / found.nbytes > times


def test_rows_no_block_divides_take_eight_bits() -> None:
    found = packed(rounded(weight(40, 63), 4), 4)

    assert found is not None
    assert found.bits == 8


def test_zero_rows_stay_zero() -> None:
    value = weight(64, 64)
    value[5] = 0

    assert not rounded(value, 4)[5].any()


def test_weights_that_were_not_rounded_stay_in_float() -> None:
    assert packed(weight(64, 64), 8) is None
    assert packed(weight(64, 64), 4) is None


def test_small_and_infinite_constants_and_those_outside_products_are_left_alone() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (2, 32, 32)))
    mask = np.where(np.tri(32) > 0, 0, -np.inf).astype(np.float32)
    table = weight(32, 32)
    b.output("y", b.add("Add", b.add("Add", x, b.constant(mask)), b.constant(table)))
    b.output("z", b.add("MatMul", x, b.constant(weight(32, MIN_SIZE // 32 - 1))))
    graph = b.build("others")

    changed = round_weights(graph, 8).constants
    assert all(np.array_equal(changed[name], value) for name, value in graph.constants.items())


@pytest.mark.parametrize("bits", [8, 4])
def test_the_compact_graph_computes_the_same_bits(bits: int) -> None:
    graph = round_weights(product(weight(64, 96)), bits)
    small = read_onnx(write_onnx(compact(graph, bits)))
    x = weight(4, 64, seed=1)

    assert np.array_equal(run(small, {"x": x})["y"], run(graph, {"x": x})["y"])


@pytest.mark.parametrize("bits", [8, 4])
def test_onnxruntime_reads_the_compact_file(bits: int) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = round_weights(product(weight(64, 96)), bits)
    data = write_onnx(compact(graph, bits))
    x = weight(4, 64, seed=1)
    found = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]

    assert len(data) < len(write_onnx(graph)) / (3 if bits == 8 else 5)
    assert np.allclose(found, run(graph, {"x": x})["y"], rtol=1e-5, atol=1e-5)


def test_both_orientations_of_a_weight_share_its_four_bits() -> None:
    graph = round_weights(product(weight(64, 64)), 4)
    value = next(iter(graph.constants.values()))
    both = product(value, turned=True)
    small = compact(both, 4)
    x = weight(4, 64, seed=1)

    assert sum(constant.dtype == np.uint8 for constant in small.constants.values()) == 1
    assert np.allclose(run(small, {"x": x})["y"], run(both, {"x": x})["y"], rtol=1e-4, atol=1e-3)


def test_two_integers_share_a_byte_each_half_of_a_block_in_one_nibble() -> None:
    levels = np.array([[-7, 0, 7, 1]], np.int8)

    assert nibbles(levels).tolist() == [[1 | 15 << 4, 8 | 9 << 4]]


@pytest.mark.parametrize("bits", [8, 4])
def test_litert_reads_the_compact_file(bits: int, litert: Callable[..., Any]) -> None:
    compared(bits, litert)


def test_tflite_runtime_reads_eight_bits(tflite_runtime: Callable[..., Any]) -> None:
    compared(8, tflite_runtime)


def compared(bits: int, engine: Callable[..., Any]) -> None:
    pytest.importorskip("tensorflow")
    from edgefl.converters.targets import to_tflite
    from edgefl.converters.targets.compact_tflite import compact_tflite

    value = rounded(weight(96, 64), bits)
    graph = product(value, turned=True)
    model = to_tflite(graph, "infer")
    small = compact_tflite(model, bits)
    x = weight(4, 96, seed=1)
    found = engine(small, {"x": x})["y"]

    assert len(small.data) < len(model.data) / (2.5 if bits == 8 else 3.5)
    assert ("LiteRT" in small.min_runtime) == (bits == 4)
    assert np.allclose(found, run(graph, {"x": x})["y"], rtol=1e-4, atol=1e-4)


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(ConversionError, match="8 and 4"):
        check_bits(3)
