# SPDX-License-Identifier: Apache-2.0
"""Reading and writing ONNX: round trips, exact bytes, and what the stock tools say of our files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefl.errors import GraphError
from edgefl.graph import Graph, Node, TensorType, read_onnx, run, write_onnx
from edgefl.graph.onnx_schema import CODES
from tests.graph.graphs import F4, small_cnn, small_input

pytestmark = pytest.mark.device


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    return bool(a == b and type(a) is type(b))


def test_round_trip_keeps_everything() -> None:
    graph = small_cnn()

    again = read_onnx(write_onnx(graph))

    assert (again.name, again.inputs, again.outputs) == (graph.name, graph.inputs, graph.outputs)
    assert again.types == {**graph.types, **graph.outputs}
    assert [str(node) for node in again] == [str(node) for node in graph]
    assert [node.attributes for node in again] == [node.attributes for node in graph]
    assert [(node.inputs, node.outputs) for node in again] == [(node.inputs, node.outputs) for node in graph]
    assert list(again.constants) == list(graph.constants)
    assert all(same(again.constants[name], value) for name, value in graph.constants.items())


def test_round_trip_gives_the_same_bytes() -> None:
    data = write_onnx(small_cnn())

    assert write_onnx(read_onnx(data)) == data


def test_bytes_do_not_depend_on_attribute_order() -> None:
    def graph(**attributes: Any) -> Graph:
        node = Node("LeakyRelu", ("x",), ("y",), attributes, "n")
        type = TensorType(F4, (1,))
        return Graph({"x": type}, {"y": type}, (node,))

    assert write_onnx(graph(alpha=0.5, beta=1)) == write_onnx(graph(beta=1, alpha=0.5))


def test_exact_bytes_of_a_small_file() -> None:
    type = TensorType(F4, (2,))
    graph = Graph(
        {"x": type}, {"y": type}, (Node("Add", ("x", "c"), ("y",)),), {"c": np.ones(2, F4)}, name="g"
    )

    assert write_onnx(graph) == (
        b"\x08\x08" + b"\x12\x06edgefl"  # IR version, producer
        b"\x3a\x4a"  # graph
        b"\x0a\x10" + b"\x0a\x01x\x0a\x01c" + b"\x12\x01y" + b"\x1a\x00" + b"\x22\x03Add"
        b"\x12\x01g"
        b"\x2a\x11" + b"\x08\x02\x10\x01" + b"\x42\x01c" + b"\x4a\x08" + b"\0\0\x80\x3f" * 2 +  # initializer
        b"\x5a\x0f" + b"\x0a\x01x" + b"\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x02"
        b"\x62\x0f" + b"\x0a\x01y" + b"\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x02"
        b"\x42\x04" + b"\x0a\x00\x10\x12"  # opset 18
    )  # fmt: skip


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_constants_of_every_dtype_survive(dtype: np.dtype[Any]) -> None:
    value = np.arange(6).reshape(2, 3).astype(dtype)
    type = TensorType.of(value)
    graph = Graph({}, {"y": type}, (Node("Identity", ("c",), ("y",)),), {"c": value})

    assert same(read_onnx(write_onnx(graph)).constants["c"], value)


@given(
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32, allow_nan=False),
        st.text(),
        st.lists(st.integers(-(2**63), 2**63 - 1)).map(tuple),
        st.lists(st.floats(width=32, allow_nan=False), min_size=1).map(tuple),
        st.lists(st.text(), min_size=1).map(tuple),
        arrays.arrays(arrays.scalar_dtypes().filter(lambda d: d in CODES), arrays.array_shapes(min_dims=0)),
    )
)
def test_attributes_of_every_kind_survive(value: Any) -> None:
    type = TensorType(F4, (1,))
    node = Node("Identity", ("x",), ("y",), {"a": value})

    [again] = read_onnx(write_onnx(Graph({"x": type}, {"y": type}, (node,)))).nodes

    assert same(again.attributes["a"], value)


def test_attributes_onnx_cannot_hold_are_refused() -> None:
    type = TensorType(F4, (1,))
    for value in (None, (1, "a"), b"bytes"):
        node = Node("Identity", ("x",), ("y",), {"a": value})  # type: ignore[dict-item]
        with pytest.raises(GraphError, match="'a'"):
            write_onnx(Graph({"x": type}, {"y": type}, (node,)))


def test_dtypes_onnx_cannot_hold_are_refused() -> None:
    with pytest.raises(GraphError, match="complex64"):
        write_onnx(replace(small_cnn(), constants={"w": np.zeros(1, np.complex64)}))


def test_onnxruntime_agrees_with_the_interpreter() -> None:
    ort = pytest.importorskip("onnxruntime")
    graph, feeds = small_cnn(), small_input()

    [expected] = ort.InferenceSession(write_onnx(graph), providers=["CPUExecutionProvider"]).run(None, feeds)

    np.testing.assert_allclose(run(graph, feeds)["y"], expected, rtol=1e-5, atol=1e-6)


def test_onnx_checker_accepts_our_files() -> None:
    onnx = pytest.importorskip("onnx")

    model = onnx.load_from_string(write_onnx(small_cnn()))
    onnx.checker.check_model(model, full_check=True)

    assert (model.ir_version, model.opset_import[0].version) == (8, 18)
