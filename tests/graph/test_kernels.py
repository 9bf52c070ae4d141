# SPDX-License-Identifier: Apache-2.0
"""Kernels against onnxruntime and the standard library, where the standard cases leave gaps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgefl.errors import BackendFailure, UnsupportedOperator
from edgefl.graph import Array, Attribute, Graph, Node, TensorType, run, write_onnx
from edgefl.graph.interpreter import execute
from edgefl.graph.kernels import ELEMENTWISE, KERNELS
from edgefl.graph.kernels.error_function import erf
from tests.graph.graphs import F4, one_node

pytestmark = pytest.mark.device
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle")


def evaluate(op: str, *inputs: Array, outputs: int = 1, **attributes: Attribute) -> tuple[Array, ...]:
    names = tuple(f"i{i}" for i in range(len(inputs)))
    node = Node(op, names, tuple(f"o{i}" for i in range(outputs)), attributes)
    with np.errstate(all="ignore"):
        return execute(node, dict(zip(names, inputs, strict=True)))


def agree(op: str, *inputs: Array, outputs: int = 1, rtol: float = 1e-5, **attributes: Attribute) -> None:
    """The kernel's outputs are onnxruntime's."""
    feeds = {f"i{i}": array for i, array in enumerate(inputs)}
    results = evaluate(op, *inputs, outputs=outputs, **attributes)
    types = {f"o{i}": TensorType.of(results[i]) for i in range(outputs)}
    data = write_onnx(one_node(op, feeds, types, **attributes))
    expected = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)
    for result, value in zip(results, expected, strict=False):
        assert (result.dtype, result.shape) == (value.dtype, value.shape)
        np.testing.assert_allclose(result, value, rtol=rtol, atol=1e-5)


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(F4)


@st.composite
def geometries(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Spatial shape, kernel, and strides, dilations and pads for one or two axes."""
    rank = draw(st.integers(1, 2))

    def each(low: int, high: int, times: int = 1) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank * times))

    spatial, kernel = each(1, 9), each(1, 4)
    attributes = {"strides": each(1, 3), "dilations": each(1, 2), "pads": each(0, 2, 2)}
    pads = attributes["pads"]
    for i, (n, k, d) in enumerate(zip(spatial, kernel, attributes["dilations"], strict=True)):
        assume((k - 1) * d + 1 <= n + pads[i] + pads[rank + i])
    return spatial, kernel, attributes


@settings(deadline=None)
@given(geometries(), st.sampled_from([(1, 3, 4), (2, 1, 2), (3, 1, 1), (2, 2, 3)]))
def test_conv(geometry: Any, channels: tuple[int, int, int]) -> None:
    spatial, kernel, attributes = geometry
    group, per_group, filters = channels
    x, w = normal(2, group * per_group, *spatial), normal(group * filters, per_group, *kernel)

    agree("Conv", x, w, normal(group * filters), group=group, **attributes)


@settings(deadline=None)
@given(geometries(), st.sampled_from([(1, 3, 4), (2, 1, 2), (3, 1, 1)]), st.data())
def test_conv_transpose(geometry: Any, channels: tuple[int, int, int], data: st.DataObject) -> None:
    spatial, kernel, attributes = geometry
    group, per_group, filters = channels
    extra = tuple(data.draw(st.integers(0, s - 1)) for s in attributes["strides"])
    sizes = zip(spatial, kernel, *(attributes[name] for name in ("strides", "dilations")), extra, strict=True)
    pads = attributes["pads"]
    total = [a + b for a, b in zip(pads[: len(spatial)], pads[len(spatial) :], strict=True)]
    full = [(n - 1) * s + (k - 1) * d + 1 + e for n, k, s, d, e in sizes]
    assume(all(f > t for f, t in zip(full, total, strict=True)))
    x, w = normal(2, group * per_group, *spatial), normal(group * per_group, filters, *kernel)

    agree("ConvTranspose", x, w, normal(group * filters), group=group, output_padding=extra, **attributes)


@settings(deadline=None)
@given(geometries(), st.booleans())
def test_pools(geometry: Any, include: bool) -> None:
    spatial, kernel, attributes = geometry
    rank = len(kernel)
    assume(all(p < k for p, k in zip(attributes["pads"], kernel * 2, strict=True)))
    x = normal(2, 3, *spatial)
    with_padding_only = ~np.isfinite(evaluate("MaxPool", x, kernel_shape=kernel, **attributes)[0])
    assume(not with_padding_only.any())  # ONNX does not say what such windows hold

    agree("MaxPool", x, outputs=2, kernel_shape=kernel, **attributes)
    plain = {**attributes, "dilations": (1,) * rank}
    agree("MaxPool", x, kernel_shape=kernel, **plain)
    del plain["dilations"]
    agree("AveragePool", x, kernel_shape=kernel, count_include_pad=int(include), **plain)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(auto_pad: str) -> None:
    x = normal(1, 2, 7, 8)

    agree("Conv", x, normal(3, 2, 3, 2), auto_pad=auto_pad, strides=(2, 3))
    agree("MaxPool", x, auto_pad=auto_pad, strides=(2, 3), kernel_shape=(3, 2))
    agree("AveragePool", x, auto_pad=auto_pad, strides=(2, 3), kernel_shape=(3, 2))


def test_a_kernel_too_large_for_shifted_products() -> None:
    agree("Conv", normal(1, 4, 12, 12), normal(4, 1, 9, 9), group=4, rtol=1e-4)


def test_columns_made_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefl.graph.kernels.convolution._CHUNK", 100)
    agree("Conv", normal(5, 2, 6, 6), normal(3, 2, 3, 3))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (6, 4, 2)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((4,), (4,)),
    ],
)
def test_matrix_products(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    agree("MatMul", normal(*a), normal(*b))


def test_matrix_product_of_views() -> None:
    a, b = normal(4, 6), normal(5, 4)
    strided = np.broadcast_to(normal(1, 6, 1), (3, 6, 4))

    np.testing.assert_allclose(evaluate("MatMul", a.T, b.T)[0], np.ascontiguousarray(a.T) @ b.T, rtol=1e-6)
    np.testing.assert_allclose(evaluate("MatMul", strided, b.T)[0], strided.copy() @ b.T.copy(), rtol=1e-6)


@given(st.lists(st.floats(allow_nan=False, width=64), min_size=1))
def test_error_function_in_double_precision(values: list[float]) -> None:
    result = erf(np.array(values))

    np.testing.assert_allclose(result, [math.erf(v) for v in values], rtol=1e-14, atol=0)


def test_error_function_in_single_precision() -> None:
    x = np.linspace(-7, 7, 20001, dtype=F4)

    np.testing.assert_allclose(erf(x), [math.erf(v) for v in x.tolist()], rtol=3e-7)
    assert np.isnan(erf(np.array([np.nan], F4)))[0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_no_kernel_promotes(dtype: Any, shape: tuple[int, ...]) -> None:
    boolean = {"Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual"}
    other = {"And", "Cast", "Not", "Or", "Where", "Xor"} | {op for op in ELEMENTWISE if op.startswith("Bit")}
    binary = {"Add", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Pow", "Sub", "Sum"} | boolean - {
        "IsInf",
        "IsNaN",
    }
    x = np.full(shape, 0.5, dtype)
    for op in ELEMENTWISE - other:
        attributes: dict[str, Attribute] = {"fmod": 1} if op == "Mod" else {}
        [result] = evaluate(op, *[x] * (2 if op in binary else 1), **attributes)
        assert isinstance(result, np.ndarray), op
        assert (result.dtype, result.shape) == (np.bool_ if op in boolean else dtype, shape), op


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_reductions_and_normalisations_keep_the_dtype(dtype: Any) -> None:
    x = np.ones((2, 4, 3, 3), dtype)
    channel = np.ones(4, dtype)
    nodes: dict[str, tuple[list[Array], dict[str, Attribute]]] = {
        **{op: ([x], {}) for op in KERNELS if op.startswith("Reduce")},
        **{op: ([x], {}) for op in ("Softmax", "LogSoftmax", "GlobalAveragePool", "GlobalMaxPool")},
        "AveragePool": ([x], {"kernel_shape": (2, 2)}),
        "BatchNormalization": ([x, channel, channel, channel, channel], {}),
        "Clip": ([x, channel[0].reshape(()), channel[0].reshape(())], {}),
        "Gemm": ([x[0, 0], x[0, 0]], {"alpha": 0.5, "beta": 0.25}),
        "InstanceNormalization": ([x, channel, channel], {}),
        "LayerNormalization": ([x, channel[:3], channel[:3]], {}),
        "LRN": ([x], {"size": 3}),
        "PRelu": ([x, channel[:1]], {}),
    }
    for op, (inputs, attributes) in nodes.items():
        assert evaluate(op, *inputs, **attributes)[0].dtype == dtype, op


def test_mixed_dtypes_are_refused() -> None:
    with pytest.raises(BackendFailure, match=r"Add.*float32, float64"):
        evaluate("Add", np.zeros(2, F4), np.zeros(2))


def test_max_pool_keeps_the_first_maximum() -> None:
    x = np.zeros((1, 1, 1, 4), F4)

    assert evaluate("MaxPool", x, outputs=2, kernel_shape=(1, 2), strides=(1, 2))[1].tolist() == [[[[0, 2]]]]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Conv", [normal(1, 3, 4, 4), normal(2, 2, 3, 3)], {}),
        ("Conv", [normal(1, 3, 4, 4), normal(2, 3, 5, 5)], {}),
        ("Conv", [normal(1, 3, 4, 4), normal(2, 3, 3, 3)], {"strides": (0, 1)}),
        ("Conv", [normal(1, 3, 4, 4), normal(2, 3, 3, 3)], {"pads": (1, 1)}),
        ("Conv", [normal(1, 3, 4, 4), normal(2, 3, 3, 3)], {"group": "one"}),
        ("MaxPool", [normal(1, 3, 4, 4)], {}),
        ("MatMul", [normal(3, 4), normal(3, 4)], {}),
        ("Gather", [normal(3), np.array([3])], {}),
        ("Reshape", [normal(3), np.array([2, -1])], {}),
        ("Reshape", [normal(3)], {}),
        ("Concat", [normal(3), normal(3)], {"axis": 1}),
        ("Dropout", [normal(3), np.array(0.5, F4), np.array(True)], {}),
        ("Constant", [], {}),
        ("Tile", [normal(1), np.array([1 << 60])], {}),
        ("Cast", [normal(1)], {"to": 8}),
    ],
)
def test_wrong_nodes_are_reported_by_name(
    op: str, inputs: list[Array], attributes: dict[str, Attribute]
) -> None:
    with pytest.raises(BackendFailure, match=op):
        evaluate(op, *inputs, **attributes)


def test_unknown_operators_and_outputs_are_reported() -> None:
    with pytest.raises(UnsupportedOperator, match="Loop"):
        evaluate("Loop", normal(1))
    with pytest.raises(UnsupportedOperator, match="asks for 2 outputs"):
        evaluate("Relu", normal(1), outputs=2)


def test_a_graph_of_every_view_gives_contiguous_outputs() -> None:
    x = normal(2, 3)
    graph = Graph(
        {"x": TensorType.of(x)}, {"y": TensorType(F4, (3, 2))}, (Node("Transpose", ("x",), ("y",)),)
    )

    assert run(graph, {"x": x})["y"].flags.c_contiguous
