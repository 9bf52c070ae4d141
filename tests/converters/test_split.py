# SPDX-License-Identifier: Apache-2.0
"""Where a model is cut, and that both halves together are the whole."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.graft import bind
from edgefl.converters.sources.forward import Forward
from edgefl.converters.split import find_cut
from edgefl.converters.step import make_graphs
from edgefl.graph import Interpreter, TensorType
from tests.converters.autodiff_oracle import normal
from tests.converters.small_models import cnn_1d, cnn_2d, mlp

F32 = np.dtype(np.float32)


def roles(forward: Forward, *trained: str):
    return {n: "shared" if n.startswith(trained) else "frozen" for n in forward.parameters}


@pytest.mark.parametrize(
    ("model", "trained", "shape"),
    [
        (mlp(), ("b", "c"), (8, 16)),
        (mlp(), ("c",), (8, 12)),
        (cnn_1d(), ("head",), (4, 16)),
        (cnn_2d(), ("head",), (4, 12)),
    ],
)
def test_two_halves_equal_the_whole(model, trained, shape):
    forward = model.forward
    graphs = make_graphs(forward, roles(forward, *trained), "softmax_cross_entropy")
    everything = make_graphs(forward, dict.fromkeys(forward.parameters, "shared"), "softmax_cross_entropy")
    assert graphs.features is not None and everything.features is None
    assert graphs.features.outputs["features"].shape == shape

    random = np.random.default_rng(0)
    x = random.standard_normal(forward.graph.inputs["x"].shape).astype(np.float32)
    batch = {"y": random.integers(0, 3, len(x)).astype(np.int32), "weight": np.ones(len(x), np.float32)}
    values = dict(forward.parameters)
    features = Interpreter(graphs.features)({"x": x})
    half = Interpreter(graphs.step)(batch | features | {n: values[n] for n in graphs.trained})
    whole = Interpreter(everything.step)(batch | {"x": x} | values)
    for name, value in half.items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-6)


def test_no_cut_where_the_prefix_has_no_product():
    forward = mlp().forward
    assert make_graphs(forward, roles(forward, "a"), "softmax_cross_entropy").features is None


def graph_of(emit, batch: int = 4, **weights: np.ndarray):
    """A graph of `x` and the weights; those called `trained...` are left as inputs."""
    b = GraphBuilder()
    x = Expr(b, b.input("x", TensorType(F32, (batch, 6))))
    named = {n: Expr(b, b.input(n, TensorType.of(w.astype(F32)))) for n, w in weights.items()}
    b.output("output", emit(x, named).name)
    fixed = {n: w.astype(F32) for n, w in weights.items() if not n.startswith("trained")}
    return bind(b.build(), fixed)


def cut_of(emit, batch: int = 4, **weights: np.ndarray):
    graph = graph_of(emit, batch, **weights)
    return graph, find_cut(graph, ["output"], [n for n in weights if n.startswith("trained")], ["x"])


def test_the_cut_is_where_the_tensors_are_smallest():
    def emit(x, w):
        wide = (x @ w["frozen"]).reshape((4, 3, 1)).expand((4, 3, 50)).apply("Relu")
        return (wide * w["trained"]).sum([2])

    graph, cut = cut_of(emit, frozen=normal(6, 3), trained=normal(50))
    assert cut is not None and cut.nbytes == 12
    assert [graph.type_of(t).size for t in cut.tensors] == [12]


def test_a_reduction_stays_in_the_prefix():
    def emit(x, w):
        return (x @ w["frozen"]).apply("Relu").reshape((4, 2, 20)).sum([2]) @ w["trained"]

    _, cut = cut_of(emit, frozen=normal(6, 40), trained=normal(2, 3))
    assert cut is not None and cut.nbytes == 8


def test_several_tensors_may_cross_and_inputs_among_them():
    def emit(x, w):
        return x @ w["trained_a"] + (x @ w["frozen"]) @ w["trained_b"]

    graph, cut = cut_of(emit, frozen=normal(6, 2), trained_a=normal(6, 3), trained_b=normal(2, 3))
    assert cut is not None and cut.heavy == 1
    assert sorted(graph.type_of(t).shape for t in cut.tensors) == [(4, 2), (4, 6)]
    assert "x" in cut.tensors


def test_no_cut_where_examples_influence_each_other():
    def emit(x, w):
        h = x @ w["frozen"]
        centred = h - h.sum([0], keepdims=True) / 4.0
        return centred @ w["trained"]

    assert cut_of(emit, frozen=normal(6, 2), trained=normal(2, 3))[1] is None


def test_the_cut_moves_to_where_rows_are_examples():
    def emit(x, w):
        return ((x @ w["frozen"]).reshape((8, 1)).apply("Relu") @ w["trained"]).reshape((4, 6))

    graph, cut = cut_of(emit, frozen=normal(6, 2), trained=normal(1, 3))
    assert cut is not None
    assert [graph.type_of(t).shape for t in cut.tensors] == [(4, 2)]


def test_no_cut_where_rows_are_not_examples():
    def emit(x, w):
        return (x @ w["frozen"]).transpose(1, 0).apply("Softmax", axis=0) @ w["trained"]

    graph, cut = cut_of(emit, frozen=normal(6, 4), trained=normal(4, 3))
    assert cut is not None
    (tensor,) = cut.tensors
    np.testing.assert_array_equal(graph.producers()[tensor].op, "MatMul")
