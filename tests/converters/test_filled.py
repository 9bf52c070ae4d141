# SPDX-License-Identifier: Apache-2.0
"""Uniform constants of ONNX files, stored as one element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.converters.autodiff import gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets import to_onnx
from edgefl.converters.targets.filled import filled
from edgefl.graph import Graph, Node, TensorType, read_onnx, run

F = np.dtype(np.float32)
ZEROS = np.zeros((40, 50), np.float32)


def graph_of(value: Any) -> Graph:
    type = TensorType.of(value)
    return Graph({"x": type}, {"y": type}, (Node("Add", ("x", "c"), ("y",)),), {"c": value})


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int64", "uint8"])
@pytest.mark.parametrize("value", [0, 3])
def test_one_element_is_stored(dtype: str, value: int) -> None:
    graph = graph_of(np.full((40, 50), value, dtype))
    back = read_onnx(data := to_onnx(filled(graph)))

    assert len(data) < 1000
    assert back.constants["c"].strides == (0, 0)
    np.testing.assert_array_equal(back.constants["c"], graph.constants["c"])
    assert back.constants["c"].dtype == dtype


def mixed(*values: float) -> Any:
    made = np.zeros((40, 50), np.float32)
    made[3, 3 : 3 + len(values)] = values
    return made


@pytest.mark.parametrize("value", [mixed(1), mixed(-0.0), mixed(np.nan), np.zeros(3, np.float32), ZEROS[:0]])
def test_others_stay_as_they_are(value: Any) -> None:
    graph = graph_of(value)

    assert filled(graph) is graph


def test_bits_are_kept() -> None:
    back = read_onnx(to_onnx(filled(graph_of(np.full((40, 50), -0.0, np.float32)))))

    assert np.signbit(back.constants["c"]).all()
    assert np.isnan(
        read_onnx(to_onnx(filled(graph_of(np.full((40, 50), np.nan, np.float32))))).constants["c"]
    ).all()


def embedding_gradient() -> Graph:
    """The gradient of a table of 5,000 rows, of which 64 are read."""
    b = GraphBuilder()
    table, rows = (
        b.input("table", TensorType(F, (5000, 8))),
        b.input("rows", TensorType(np.dtype(np.int64), (64,))),
    )
    read = b.add("Gather", table, rows)
    loss = b.add("ReduceSum", b.add("Mul", read, read), keepdims=0)
    b.output("grad", gradients(b, loss, [table])[table])
    return b.build("step")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_read_them(engine: str) -> None:
    graph = embedding_gradient()
    rng = np.random.default_rng(0)
    feeds = {"table": rng.normal(size=(5000, 8)).astype(np.float32), "rows": rng.integers(0, 5000, 64)}
    data = to_onnx(filled(graph))

    assert len(data) < 2000 < 5000 * 8 * 4 < len(to_onnx(graph))
    np.testing.assert_allclose(on(engine, data, feeds), run(read_onnx(data), feeds)["grad"], rtol=1e-6)
    np.testing.assert_array_equal(run(read_onnx(data), feeds)["grad"], run(graph, feeds)["grad"])


def on(engine: str, data: bytes, feeds: dict[str, Any]) -> Any:
    module = pytest.importorskip(engine)
    if engine == "onnxruntime":
        return module.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    return module.compile_model(module.Core().read_model(data), "CPU")(feeds)[0]


def test_bundles_hold_them_so() -> None:
    torch = pytest.importorskip("torch")
    from edgefl import convert

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(5000, 8), torch.nn.Flatten(), torch.nn.Linear(128, 3))
    bundle: Bundle = convert(model, np.zeros((1, 16), np.int32), targets=("onnx",), batch_size=4)

    assert len(bundle.artifact("onnx", "step")) < 20_000
