# SPDX-License-Identifier: Apache-2.0
"""Folding scales and biases leaves the function as it is, with less to compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.fold import fold
from edgefl.graph import Graph, TensorType, run
from tests.converters.autodiff_oracle import normal

Emit = Callable[[Expr, Mapping[str, Expr]], Expr]
WEIGHTS = {
    "w": normal(4, 3, 3, 3), "grouped": normal(3, 1, 3, 3), "dense": normal(6, 4),
    "scale": normal(1, 4, 1, 1), "shift": normal(4, 1, 1), "three": normal(3, 1, 1),
    "row": normal(4), "one": normal(1), "wide": normal(1, 4, 6, 1),
}  # fmt: skip


def folded(emit: Emit, x: np.ndarray) -> Graph:
    """The graph folded, once it was seen to give the same as before."""
    b = GraphBuilder()
    data = Expr(b, b.input("x", TensorType.of(x)))
    named = {name: Expr(b, b.input(name, TensorType.of(value))) for name, value in WEIGHTS.items()}
    b.output("output", emit(data, named).name)
    graph = b.build()
    after = fold(graph, ["x"])
    feeds = {"x": x, **WEIGHTS}
    np.testing.assert_allclose(run(after, feeds)["output"], run(graph, feeds)["output"], rtol=1e-10)
    assert after.inputs == graph.inputs
    return after


IMAGE, ROWS = normal(8, 3, 8, 8), normal(100, 6)


def on_data(graph: Graph) -> list[str]:
    """Operators whose output is as large as what flows through the network, in order."""
    return [n.op for n in graph if graph.type_of(n.outputs[0]).size > 300]


def conv(x: Expr, w: Expr, **attributes: int) -> Expr:
    return x.apply("Conv", w, kernel_shape=(3, 3), **attributes)


@pytest.mark.parametrize(
    ("emit", "left"),
    [
        (lambda x, w: conv(x, w["w"]) * w["scale"] + w["shift"], ["Conv", "Add"]),
        (lambda x, w: w["shift"] + w["scale"] * conv(x, w["w"]), ["Conv", "Add"]),
        (lambda x, w: (conv(x, w["w"]) + w["shift"]) * w["scale"] + w["shift"], ["Conv", "Add"]),
        (lambda x, w: conv(x, w["w"]) * w["scale"] * w["one"], ["Conv"]),
        (lambda x, w: conv(x, w["grouped"], group=3) * w["three"], ["Conv"]),
        (lambda x, w: (conv(x, w["w"]) * w["scale"] + w["shift"]).apply("Relu"), ["Conv", "Add", "Relu"]),
        (lambda x, w: conv(x, w["w"]) * w["wide"], ["Conv", "Mul"]),
        (lambda x, w: x * w["three"], ["Mul"]),
    ],
)
def test_convolutions(emit, left):
    assert on_data(folded(emit, IMAGE)) == left


def test_matrix_products():
    graph = folded(lambda x, w: (x @ w["dense"] + w["row"]) * w["row"] + w["row"], ROWS)
    assert on_data(graph) == ["MatMul", "Add"]


def test_a_product_read_twice_is_not_repeated():
    def emit(x, w):
        y = conv(x, w["w"])
        return y * w["scale"] + y

    assert on_data(folded(emit, IMAGE)) == ["Conv", "Mul", "Add"]


def test_factors_that_depend_on_data_stay():
    def emit(x, w):
        y = conv(x, w["w"])
        return y * y.sum([0, 2, 3], keepdims=True)

    assert on_data(folded(emit, IMAGE)).count("Mul") == 1


def test_a_weight_larger_than_the_result_is_not_scaled():
    graph = folded(lambda x, w: x @ w["dense"] * w["row"], ROWS[:2])
    assert [graph.type_of(n.inputs[0]).shape for n in graph if n.op == "Mul"] == [(2, 4)]
