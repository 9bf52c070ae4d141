# SPDX-License-Identifier: Apache-2.0
"""Comparisons as arithmetic, and products with weights known at run time, in TFLite files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets import to_tflite
from edgefl.graph import Graph, TensorType, run

pytest.importorskip("tensorflow")

F = np.dtype(np.float32)
FLOAT = 1
TINY = float(np.finfo(np.float32).tiny)
EDGES = [
    0.0,
    -0.0,
    TINY,
    -TINY,
    1e-30,
    6.0,
    np.nextafter(np.float32(6), np.float32(0)),
    7.0,
    -3.0,
    3e38,
    -3e38,
]


def compared() -> Graph:
    """`0 < x < 6`, `x > 2` and `x < -1` as zeros and ones."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (2, len(EDGES))))
    zero, six = (b.constant(np.float32(n)) for n in (0, 6))
    inside = b.add("And", b.add("Greater", x, zero), b.add("Less", x, six))
    b.output("inside", b.add("Cast", inside, to=FLOAT))
    b.output("above", b.add("Cast", b.add("Greater", x, b.constant(np.float32([[2]]))), to=FLOAT))
    b.output("below", b.add("Cast", b.add("Less", x, b.constant(np.float32([-1]))), to=FLOAT))
    b.output("positive", b.add("Cast", b.add("Greater", x, zero), to=FLOAT))
    return b.build("compared")


@pytest.mark.parametrize("engine", ["litert", "tflite_runtime"])
def test_comparisons_at_their_bounds(engine: str, request: pytest.FixtureRequest) -> None:
    graph = compared()
    lite = to_tflite(graph, "infer")
    feeds = {"x": np.float32([EDGES, EDGES[::-1]])}

    found = request.getfixturevalue(engine)(lite, feeds)

    for name, value in run(graph, feeds).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert not {"GREATER", "LESS", "LOGICAL_AND", "CAST"} & set(lite.operators)


def test_other_comparisons_stay(litert: Any) -> None:
    b = GraphBuilder()
    x, y = b.input("x", TensorType(F, (4,))), b.input("y", TensorType(F, (4,)))
    b.output("greater", b.add("Cast", b.add("Greater", x, y), to=FLOAT))
    b.output("infinite", b.add("Cast", b.add("Less", x, b.constant(np.float32(np.inf))), to=FLOAT))
    graph = b.build()
    feeds = {"x": np.float32([1, np.inf, -np.inf, 2]), "y": np.float32([1, 0, -np.inf, 1])}

    found = litert(to_tflite(graph, "infer"), feeds)

    for name, value in run(graph, feeds).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("engine", ["litert", "tflite_runtime"])
@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7), (1, 7)])
def test_products_with_weights_that_are_inputs(
    shape: tuple[int, ...], engine: str, request: pytest.FixtureRequest
) -> None:
    b = GraphBuilder()
    x, w = b.input("x", TensorType(F, shape)), b.input("w", TensorType(F, (3, 7)))
    product = b.add("MatMul", x, b.add("Transpose", w, perm=(1, 0)))
    flat = b.add("Reshape", product, b.constant(np.array((-1, 3))))
    b.output("y", b.add("Relu", flat))
    graph = b.build()
    lite = to_tflite(graph, "infer")
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(t.shape, np.float32) for name, t in graph.inputs.items()}

    found = request.getfixturevalue(engine)(lite, feeds)

    np.testing.assert_allclose(found["y"], run(graph, feeds)["y"], rtol=1e-5, atol=1e-6)
    assert "FULLY_CONNECTED" not in lite.operators and lite.min_runtime == "2.3.0"
