# SPDX-License-Identifier: Apache-2.0
"""Running whole graphs: checked feeds, memory freed, and what is said when something is wrong."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from edgefl.errors import DataShape, DataType, GraphError, UnsupportedOperator
from edgefl.graph import Graph, Interpreter, Node, TensorType, run
from tests.graph.graphs import F4, peak_bytes, small_cnn, small_input

pytestmark = pytest.mark.device


def test_running_twice_gives_the_same() -> None:
    interpreter = Interpreter(small_cnn())

    first, second = (interpreter(small_input())["y"] for _ in range(2))

    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-6)


def test_feeds_must_have_the_inputs_names_shapes_and_dtypes() -> None:
    interpreter, x = Interpreter(small_cnn()), small_input()["x"]

    with pytest.raises(DataShape, match=r"\['x'\], given \['z'\]"):
        interpreter({"z": x})
    with pytest.raises(DataShape, match="'x'"):
        interpreter({"x": x[:1]})
    with pytest.raises(DataType, match="float64, expected float32"):
        interpreter({"x": x.astype(np.float64)})


def test_operators_without_a_kernel_are_named_before_running() -> None:
    type = TensorType(F4, (1,))
    graph = Graph({"x": type}, {"y": type}, (Node("Scan", ("x",), ("y",)),))

    with pytest.raises(UnsupportedOperator, match="Scan"):
        Interpreter(graph)


def test_tensors_are_freed_after_their_last_reader() -> None:
    type = TensorType(F4, (1 << 18,))
    names = [f"t{i}" for i in range(21)]
    nodes = tuple(Node("Exp", (a,), (b,)) for a, b in pairwise(names))
    interpreter = Interpreter(Graph({names[0]: type}, {names[-1]: type}, nodes))
    feeds = {names[0]: np.full(type.shape, -1, F4)}

    assert peak_bytes(lambda: interpreter(feeds)) < 4 * type.nbytes


def test_what_nothing_reads_is_computed_before_more_memory_is_taken() -> None:
    """Sums of 20 large tensors, listed after the last of these is made."""
    type, scalar = TensorType(F4, (1 << 18,)), TensorType(F4, ())
    names = [f"t{i}" for i in range(21)]
    chain = [Node("Exp", (a,), (b,)) for a, b in pairwise(names)]
    sums = [Node("ReduceSum", (n,), (f"sum/{n}",), {"keepdims": 0}) for n in names[1:]]
    outputs = {f"sum/{n}": scalar for n in names[1:]}
    interpreter = Interpreter(Graph({names[0]: type}, outputs, (*chain, *sums)))
    feeds = {names[0]: np.full(type.shape, -1, F4)}

    assert peak_bytes(lambda: interpreter(feeds)) < 4 * type.nbytes


def test_omitted_inputs_and_outputs() -> None:
    type = TensorType(F4, (2,))
    nodes = (
        Node("Clip", ("x", "", "top"), ("c",)),
        Node("Dropout", ("c",), ("y", "")),
    )
    graph = Graph({"x": type}, {"y": type}, nodes, {"top": np.array(1, F4)})

    assert run(graph, {"x": np.array([-3, 3], F4)})["y"].tolist() == [-3, 1]


def test_type_of_knows_inputs_constants_and_intermediates() -> None:
    graph = small_cnn()

    assert str(graph.type_of("x")) == "float32[2,1,8,8]"
    assert graph.type_of("w").shape == (4, 1, 3, 3)
    assert graph.type_of("c").nbytes == 2 * 4 * 8 * 8 * 4
    with pytest.raises(GraphError, match=r"'small'.*'nothing'"):
        graph.type_of("nothing")


def test_producers_consumers_and_operators() -> None:
    graph = small_cnn()

    assert graph.producers()["c"].op == "Conv"
    assert [node.op for node in graph.consumers()["c"]] == ["LeakyRelu"]
    assert graph.operators()["MatMul"] == 1
