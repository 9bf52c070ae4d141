# SPDX-License-Identifier: Apache-2.0
"""Element-wise work behind pools and sums."""

from __future__ import annotations

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.postpone import postpone
from edgefl.graph import Graph, TensorType, run

POOL = {"kernel_shape": (2, 2), "strides": (2, 2), "pads": (0, 0, 1, 1), "dilations": (1, 1)}


def image(*shape: int) -> TensorType:
    return TensorType(np.dtype(np.float32), shape)


def activated(b: GraphBuilder) -> str:
    x, bias = b.input("x", image(2, 3, 5, 5)), b.input("bias", image(3, 1, 1))
    return b.add("Relu", b.add("Add", bias, x))


def pooled(op: str = "MaxPool") -> Graph:
    b = GraphBuilder()
    b.output("y", b.add(op, activated(b), **(POOL if op == "MaxPool" else {**POOL, "count_include_pad": 0})))
    return b.build()


def same(one: Graph, other: Graph) -> None:
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(type.shape).astype(np.float32) for name, type in one.inputs.items()}
    expected, found = run(one, feeds), run(other, feeds)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_bias_and_activation_come_after_the_pool() -> None:
    graph = pooled()
    made = postpone(graph, ["x", "bias", "y"])

    assert [node.op for node in made] == ["MaxPool", "Add", "Relu"]
    same(graph, made)


def test_an_average_stays_behind_its_activation() -> None:
    graph = pooled("AveragePool")

    assert postpone(graph, ["x", "bias", "y"]) is graph


def test_what_others_read_stays() -> None:
    b = GraphBuilder()
    active = activated(b)
    b.output("y", b.add("MaxPool", active, **POOL))
    b.output("active", b.add("Neg", active))
    graph = b.build()

    assert postpone(graph, ["x", "bias", "y"]) is graph


def test_a_tensor_given_from_outside_stays() -> None:
    graph = pooled()
    (relu,) = (node for node in graph if node.op == "Relu")
    made = postpone(graph, ["x", "bias", "y", relu.inputs[0]])

    assert [node.op for node in made] == ["Add", "MaxPool", "Relu"]
    same(graph, made)


def test_biases_of_summands_are_one() -> None:
    b = GraphBuilder()
    parts = [
        b.add("Add", b.input(f"x{i}", image(2, 3, 4, 4)), b.input(f"b{i}", image(1, 3, 1, 1)))
        for i in range(2)
    ]
    b.output("y", b.add("Add", *parts))
    graph = b.build()
    made = postpone(graph, list(graph.inputs))

    sizes = sorted(made.type_of(node.outputs[0]).size for node in made)
    assert sizes == [3, 96, 96]
    same(graph, made)
