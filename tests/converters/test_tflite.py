# SPDX-License-Identifier: Apache-2.0
"""The TFLite target as a whole: signatures, names, layout, reproducible bytes and refusals."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgefl.converters.autodiff import Expr
from edgefl.converters.autodiff.windows import interleave
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets import TFLiteModel, flatbuffer, to_tflite
from edgefl.errors import ConversionError, UnsupportedOperator
from edgefl.graph import Graph, Node, TensorType, run

pytest.importorskip("tensorflow")

Engine = Callable[..., dict[str, Any]]
F = np.dtype(np.float32)


def test_two_constants_in_one_buffer_both_move() -> None:
    """TensorFlow's quantizer writes such files; the second of the two was left without its bytes."""
    rows = [SimpleNamespace(buffer=index, isVariable=False) for index in (1, 2, 2, 3)]
    data = (None, b"\x7f", b"\x7f", b"\x01")
    model = SimpleNamespace(
        subgraphs=[SimpleNamespace(operators=[], tensors=rows)],
        buffers=[SimpleNamespace(data=held) for held in data],
    )

    flatbuffer._share(model)

    assert [row.buffer for row in rows] == [1, 1, 1, 3]
    assert [buffer.data for buffer in model.buffers] == [None, b"\x7f", None, b"\x01"]


def chain(blocks: int) -> Graph:
    """Convolutions with bias, activation and pooling, weights as inputs, then a dense layer."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType(F, (2, 3, 16, 16)))
    channels = 3
    for i in range(blocks):
        weight = builder.input(f"conv{i}/weight", TensorType(F, (8, channels, 3, 3)))
        bias = builder.input(f"conv{i}/bias", TensorType(F, (8,)))
        x = builder.add("Conv", x, weight, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
        x = builder.add("Add", x, builder.add("Reshape", bias, builder.constant(np.array([1, 8, 1, 1]))))
        x = builder.add("Relu", x)
        channels = 8
    x = builder.add("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2))
    x = builder.add("ReduceMean", x, builder.constant(np.array([2, 3])), keepdims=0)
    dense = builder.input("dense/weight", TensorType(F, (4, 8)))
    builder.output("output", builder.add("MatMul", x, builder.add("Transpose", dense, perm=(1, 0))))
    return builder.build("chain")


def feeds_of(graph: Graph, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=t.shape).astype(t.dtype) for name, t in graph.inputs.items()}


def test_a_network_agrees_with_the_reference(litert: Engine, tflite_runtime: Engine) -> None:
    graph = chain(3)
    feeds = feeds_of(graph)

    model = to_tflite(graph, "infer")

    expected = run(graph, feeds)["output"]
    for engine in (litert, tflite_runtime):
        np.testing.assert_allclose(engine(model, feeds)["output"], expected, rtol=1e-5, atol=1e-5)


def test_one_transpose_per_image_and_weight_whatever_the_depth() -> None:
    model = to_tflite(chain(6), "infer")

    # The image; each weight, and twice more for the neighbouring positions that one product serves.
    assert model.transposes == 1 + 3 * 6
    assert model.operators["BATCH_MATMUL"] == 6 + 1


@pytest.mark.parametrize("count", [2, 3])
def test_interleaving_does_not_leave_the_channel_last_layout(
    count: int, litert: Engine, tflite_runtime: Engine
) -> None:
    builder = GraphBuilder()
    x = Expr(builder, builder.input("x", TensorType(F, (2, 4, 3, 5))))
    weight = Expr(builder, builder.input("weight", TensorType(F, (4, 4, 1, 1))))
    held = x.apply("Conv", weight, kernel_shape=(1, 1))
    gap = held.constant(np.zeros(held.shape, np.float32))
    parts = [held, *(held * float(i + 1) for i in range(1, count - 1)), gap]
    rows = interleave(parts, 2)
    both = interleave([rows * float(i + 1) for i in range(count)], 3)
    builder.output("y", both.apply("Conv", weight, kernel_shape=(1, 1)).name)
    graph = builder.build()
    feeds = feeds_of(graph)

    model = to_tflite(graph, "infer")

    assert model.transposes == 2  # the image and the result; a weight of one tap is a matrix as it is
    for engine in (litert, tflite_runtime):
        np.testing.assert_allclose(engine(model, feeds)["y"], run(graph, feeds)["y"], rtol=1e-5, atol=1e-5)


def test_names_are_safe_and_distinct(litert: Engine) -> None:
    builder = GraphBuilder()
    names = ("a/b:0", "a.b:0", "a_b_0", "0", "ä")
    for name in names:
        builder.output(f"grad/{name}", builder.add("Neg", builder.input(name, TensorType(F, (2,)))))
    feeds = {name: np.full(2, i, np.float32) for i, name in enumerate(names)}

    model = to_tflite(builder.build(), "step")

    assert len(set(model.inputs.values())) == len(names)
    assert all(
        name.isascii() and name.isidentifier() for name in (*model.inputs.values(), *model.outputs.values())
    )
    assert {n: v.tolist() for n, v in litert(model, feeds).items()} == {
        f"grad/{name}": [-i, -i] for i, name in enumerate(names)
    }


def test_outputs_may_be_inputs_constants_or_one_another(litert: Engine, tflite_runtime: Engine) -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType(F, (2, 3)))
    builder.input("unused", TensorType(F, (4,)))
    doubled = builder.add("Add", x, x)
    for name, tensor in (
        ("a", x),
        ("b", doubled),
        ("c", doubled),
        ("d", builder.constant(np.ones(2, np.float32))),
    ):
        builder.output(name, tensor)
    graph = builder.build()
    feeds = feeds_of(graph)

    model = to_tflite(graph, "infer")

    expected = run(graph, feeds)
    for engine in (litert, tflite_runtime):
        found = engine(model, feeds)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


def test_whole_numbers_of_64_bits_stay_so_at_the_border(litert: Engine) -> None:
    builder = GraphBuilder()
    ids = builder.input("ids", TensorType(np.dtype(np.int64), (3,)))
    table = builder.input("table", TensorType(F, (5, 2)))
    builder.output("rows", builder.add("Gather", table, ids))
    builder.output("next", builder.add("Add", ids, builder.constant(np.int64(1))))
    graph = builder.build()
    feeds = {"ids": np.array([4, 0, 2]), "table": np.arange(10, dtype=np.float32).reshape(5, 2)}

    found = litert(to_tflite(graph, "infer"), feeds)

    assert found["next"].dtype == np.int64
    assert found["next"].tolist() == [5, 1, 3]
    assert found["rows"].tolist() == [[8, 9], [0, 1], [4, 5]]


_DIGEST = """
import hashlib, sys
import numpy as np
from edgefl.graph import read_onnx
from edgefl.converters.targets import to_tflite
model = to_tflite(read_onnx(sys.stdin.buffer.read()), "infer")
print(hashlib.sha256(model.data).hexdigest())
"""


def test_equal_graphs_give_equal_bytes_in_any_process() -> None:
    from edgefl.graph import write_onnx

    data = write_onnx(chain(2))
    digests = set()
    for seed in ("1", "2"):
        finished = subprocess.run(
            [sys.executable, "-c", _DIGEST],
            input=data,
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        )
        digests.add(finished.stdout.decode().strip())

    assert digests == {hashlib.sha256(to_tflite(chain(2), "infer").data).hexdigest()}


def test_converting_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    to_tflite(chain(1), "infer")

    assert capfd.readouterr() == ("", "")


def test_an_operator_without_a_counterpart_is_named() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType(F, (2, 2)))
    builder.output("y", builder.add("NonZero", x, name="where_is_it"))

    with pytest.raises(UnsupportedOperator, match=r"NonZero 'where_is_it'"):
        to_tflite(builder.build(), "infer")


def test_double_precision_is_refused() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType(np.dtype(np.float64), (2, 2)))
    builder.output("y", builder.add("Neg", x, name="wide"))

    with pytest.raises(UnsupportedOperator, match=r"wide.*float64.*float32"):
        to_tflite(builder.build(), "infer")


def test_a_slice_with_unknown_bounds_is_refused() -> None:
    ends = TensorType(np.dtype(np.int64), (1,))
    x, y = TensorType(F, (4,)), TensorType(F, (2,))
    node = Node("Slice", ("x", "zero", "ends"), ("y",), {}, "moving")
    graph = Graph({"x": x, "ends": ends}, {"y": y}, (node,), {"zero": np.zeros(1, np.int64)})

    with pytest.raises(UnsupportedOperator, match=r"moving.*constant as input 2"):
        to_tflite(graph, "infer")


def test_a_signature_without_inputs_is_refused() -> None:
    builder = GraphBuilder()
    builder.output("y", builder.constant(np.ones(2, np.float32)))

    with pytest.raises(ConversionError, match="no inputs"):
        to_tflite(builder.build(), "infer")


def test_a_model_lists_its_operators() -> None:
    model = to_tflite(chain(1), "infer")

    assert isinstance(model, TFLiteModel)
    assert model.operators["MAX_POOL_2D"] == 1
    assert model.signature == "infer"


def test_files_ask_for_no_newer_runtime_than_they_need() -> None:
    version = tuple(int(n) for n in to_tflite(chain(1), "infer").min_runtime.split("."))

    assert (1, 0, 0) < version <= (2, 14, 0)


def test_a_refusal_names_the_node_and_shows_no_compiler_output() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(np.dtype(np.int32), (2, 3)))
    product = b.add("MatMul", x, b.constant(np.ones((3, 4), np.int32)), name="encoder/count")
    b.output("y", b.add("Neg", product))

    with pytest.raises(UnsupportedOperator) as caught:
        to_tflite(b.build("infer"), "infer")

    said = str(caught.value)
    assert "node MatMul 'encoder/count'" in said and "2x3xi32" in said
    assert "\n" not in said and "loc(" not in said and "tensor<" not in said and len(said) < 200
