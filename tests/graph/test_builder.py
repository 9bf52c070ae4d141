# SPDX-License-Identifier: Apache-2.0
"""GraphBuilder: types, folding, sharing, dead nodes and output names."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.converters import builder as building
from edgefl.converters.builder import GraphBuilder
from edgefl.errors import ConversionError, GraphError, UnsupportedOperator
from edgefl.graph import Interpreter, TensorType, read_onnx, run, write_onnx
from edgefl.graph.inference import infer_types
from tests.graph.graphs import F4, peak_bytes, small_cnn

X = TensorType(F4, (2, 3))


def builder() -> tuple[GraphBuilder, str]:
    b = GraphBuilder()
    return b, b.input("x", X)


def test_types_are_inferred() -> None:
    b, x = builder()

    y = b.add("Concat", x, x, axis=0)

    assert b.type(y) == TensorType(F4, (4, 3))
    assert b.type(b.add("Greater", x, x)) == TensorType(np.dtype(np.bool_), (2, 3))


def test_element_wise_types_broadcast() -> None:
    b, x = builder()
    column = b.input("column", TensorType(F4, (5, 1, 3)))

    assert b.shape(b.add("Add", x, column)) == (5, 2, 3)


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_batches_of_convolutions_and_pools(batch: int) -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F4, (batch, 2, 6, 6)))
    w = b.input("w", TensorType(F4, (4, 2, 3, 3)))

    assert b.shape(b.add("Conv", x, w)) == (batch, 4, 4, 4)
    assert b.shape(b.add("ConvTranspose", b.add("Conv", x, w), w)) == (batch, 2, 6, 6)
    assert b.shape(b.add("MaxPool", x, kernel_shape=(2, 2))) == (batch, 2, 5, 5)


def test_a_convolution_of_a_tensor_with_itself() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F4, (3, 2, 4, 4)))

    assert b.shape(b.add("Conv", x, x)) == (3, 3, 1, 1)


def test_nodes_with_several_outputs() -> None:
    b, x = builder()

    left, right = b.add("Split", x, b.constant(np.array([1, 2])), outputs=2, axis=1)

    assert (b.shape(left), b.shape(right)) == ((2, 1), (2, 2))


def test_known_values_are_folded() -> None:
    b, x = builder()

    six = b.add("Mul", b.constant(2.0, F4), b.constant(3.0, F4))
    b.output("y", b.add("Add", x, six))

    assert b.value(six) == np.float32(6)
    assert b.build().operators() == {"Add": 1}


def test_shapes_are_known() -> None:
    b, x = builder()

    shape = b.value(b.add("Shape", x))

    assert shape is not None
    assert shape.tolist() == [2, 3]
    assert b.value(x) is None


def test_folded_values_too_large_to_keep_stay_nodes() -> None:
    b, _ = builder()
    large = b.add("Expand", b.constant(1.0, F4), b.constant(np.array([1 << 23])))

    assert b.value(large) is None
    assert b.shape(large) == (1 << 23,)


def test_equal_nodes_and_constants_are_shared() -> None:
    b, x = builder()

    assert b.add("Relu", x) == b.add("Relu", x)
    assert b.add("Elu", x, alpha=0.5) != b.add("Elu", x, alpha=0.25)
    assert b.constant(np.ones(3, F4)) == b.constant(np.ones(3, F4))
    assert b.constant(np.ones(3, F4)) != b.constant(np.ones(3))
    assert b.constant(0.0, F4) != b.constant(-0.0, F4)


def test_constants_do_not_follow_the_callers_array() -> None:
    b, _ = builder()
    array = np.ones(3, F4)
    name = b.constant(array)

    array[:] = 7

    value = b.value(name)
    assert value is not None
    assert value.tolist() == [1, 1, 1]


def test_dead_nodes_and_constants_are_dropped() -> None:
    b, x = builder()
    b.add("Mul", b.add("Exp", x), b.constant(5.0, F4))
    b.output("y", b.add("Relu", x))

    graph = b.build()

    assert graph.operators() == {"Relu": 1}
    assert not graph.constants


def test_outputs_get_their_names() -> None:
    b, x = builder()
    h = b.add("Relu", x)
    b.output("y", b.add("Neg", h))
    b.output("hidden", h)

    graph = b.build()

    assert [(node.inputs, node.outputs) for node in graph] == [(("x",), ("hidden",)), (("hidden",), ("y",))]
    assert graph.types["hidden"] == X


def test_outputs_that_are_inputs_constants_or_one_tensor_twice() -> None:
    b, x = builder()
    h = b.add("Relu", x)
    for name, tensor in {"a": h, "b": h, "c": x, "d": b.constant(np.ones(1, F4))}.items():
        b.output(name, tensor)
    graph, feed = b.build(), np.array([[-1, 0, 1], [2, -2, 3]], F4)

    results = run(graph, {"x": feed})

    np.testing.assert_array_equal(results["a"], np.maximum(feed, 0))
    np.testing.assert_array_equal(results["b"], results["a"])
    np.testing.assert_array_equal(results["c"], feed)
    assert results["d"] == 1


def test_built_graphs_survive_a_file() -> None:
    onnx = pytest.importorskip("onnx")
    b, x = builder()
    h = b.add("MatMul", x, b.constant(np.ones((3, 4), F4)))
    b.output("y", b.add("Softmax", h, axis=-1))
    b.output("same", x)
    data = write_onnx(b.build("g"))

    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)

    feed = {"x": np.ones((2, 3), F4)}
    np.testing.assert_array_equal(Interpreter(read_onnx(data))(feed)["y"], np.full((2, 4), 0.25, F4))


def test_names_that_are_taken_are_refused() -> None:
    b, x = builder()
    b.output("y", b.add("Relu", x))

    for name in ("x", "y", ""):
        with pytest.raises(GraphError, match="taken"):
            b.input(name, X)
    for name in ("x", "y"):
        with pytest.raises(GraphError, match="taken"):
            b.output(name, x)


def test_given_names_do_not_collide_with_made_ones() -> None:
    b = GraphBuilder()
    b.input("t1_relu", X)

    assert b.add("Relu", "t1_relu") != "t1_relu"


def test_unknown_tensors_are_refused() -> None:
    b, _ = builder()

    with pytest.raises(GraphError, match="'z'"):
        b.add("Relu", "z")
    with pytest.raises(GraphError, match="'z'"):
        b.output("y", "z")


def test_nodes_the_kernel_refuses_are_conversion_errors() -> None:
    b, x = builder()

    with pytest.raises(ConversionError, match=r"MatMul.*x\[2, 3\]"):
        b.add("MatMul", x, x, name="product")
    with pytest.raises(ConversionError, match="Add"):
        b.add("Add", x, b.constant(np.ones(4, F4)))
    with pytest.raises(UnsupportedOperator, match="Loop"):
        b.add("Loop", x)


def test_element_wise_inference_takes_no_memory() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F4, (1 << 10, 1 << 10, 1 << 10)))

    assert peak_bytes(lambda: b.add("Exp", b.add("Add", x, x))) < 1 << 20


def test_inferred_types_are_those_of_execution() -> None:
    graph = small_cnn()

    types = infer_types(graph.nodes, graph.inputs, graph.constants)

    assert types["y"] == graph.outputs["y"]
    assert types["p"].shape == (2, 4, 4, 4)


def test_nodes_that_repeat_are_inferred_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    plain = building.infer
    monkeypatch.setattr(
        building, "infer", lambda node, samples: (seen.append(node.op), plain(node, samples))[1]
    )
    b, x = builder()

    def doubled(x: str, width: int) -> str:
        starts, ends, axes = (b.constant(np.array([n], np.int64)) for n in (0, width, 1))
        return b.add("Slice", b.add("Concat", x, x, axis=1), starts, ends, axes)

    for _ in range(50):
        x = b.add("Tanh", doubled(x, 3))
    longer = doubled(x, 4)

    assert b.shape(x) == (2, 3) and b.shape(longer) == (2, 4)
    assert seen == ["Concat", "Slice", "Tanh", "Slice"]
