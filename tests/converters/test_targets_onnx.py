# SPDX-License-Identifier: Apache-2.0
"""The ONNX target against stock onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.converters.targets import to_onnx
from edgefl.errors import ConversionError
from edgefl.graph import Graph, Node, TensorType, read_onnx, run

onnxruntime = pytest.importorskip("onnxruntime")

F = np.dtype(np.float32)
X = TensorType(F, (2, 3))


def test_nodes_that_share_a_name_are_told_apart() -> None:
    names = ("layer", "layer", "layer/2", "layer", "")
    tensors = ["x", *(f"h{i}" for i in range(len(names) - 1)), "y"]
    nodes = tuple(
        Node("Neg", (a,), (b,), {}, n) for n, a, b in zip(names, tensors, tensors[1:], strict=False)
    )
    graph = Graph({"x": X}, {"y": X}, nodes)
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}

    session = onnxruntime.InferenceSession(to_onnx(graph), providers=["CPUExecutionProvider"])

    np.testing.assert_array_equal(session.run(None, feeds)[0], run(graph, feeds)["y"])


def test_an_invalid_graph_is_refused() -> None:
    pytest.importorskip("onnx")
    graph = Graph({"x": X}, {"y": X}, (Node("NoSuchOperator", ("x",), ("y",)),), name="broken")

    with pytest.raises(ConversionError, match=r"broken.*NoSuchOperator"):
        to_onnx(graph)


def test_what_nothing_reads_comes_last_and_the_latest_of_it_first() -> None:
    nodes = (
        Node("Neg", ("x",), ("a",)),
        Node("Abs", ("a",), ("first",)),
        Node("Neg", ("a",), ("b",)),
        Node("Abs", ("b",), ("second",)),
        Node("Neg", ("b",), ("c",)),
        Node("Abs", ("c",), ("third",)),
    )
    graph = Graph({"x": X}, dict.fromkeys(("first", "second", "third"), X), nodes)

    back = read_onnx(to_onnx(graph))

    assert [node.outputs[0] for node in back] == ["a", "b", "c", "third", "second", "first"]
    assert list(back.outputs) == ["first", "second", "third"]
