# SPDX-License-Identifier: Apache-2.0
"""Every lowering against the NumPy interpreter, on ai-edge-litert and on tflite-runtime 2.14."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets import to_tflite
from edgefl.graph import Graph, TensorType, run

pytest.importorskip("tensorflow")

Engine = Callable[..., dict[str, Any]]
F, I64 = np.dtype(np.float32), np.dtype(np.int64)


class Bench:
    """A graph of many independent applications of operators to the same few inputs.

    With `shuffled`, every input is held in a random axis order when the operators read it.
    """

    def __init__(self, shuffled: bool, seed: int = 0) -> None:
        self.builder = GraphBuilder()
        self.random = np.random.default_rng(seed)
        self.shuffled = shuffled
        self.feeds: dict[str, Any] = {}

    def input(self, *shape: int, low: float = -2.0, high: float = 2.0) -> str:
        return self.feed(self.random.uniform(low, high, shape).astype(np.float32))

    def feed(self, value: Any) -> str:
        name = f"in{len(self.feeds)}"
        order = tuple(range(value.ndim))
        if self.shuffled:
            order = tuple(int(axis) for axis in self.random.permutation(value.ndim))
        self.feeds[name] = np.ascontiguousarray(value.transpose(order))
        held = self.builder.input(name, TensorType.of(self.feeds[name]))
        back = tuple(order.index(axis) for axis in range(value.ndim))
        return self.builder.add("Transpose", held, perm=back) if self.shuffled and value.ndim > 1 else held

    def ints(self, *values: int) -> str:
        return self.builder.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.builder.constant(np.float32(value))

    def out(self, tensor: str, label: str = "") -> None:
        self.builder.output(f"{label or 'out'}/{len(self.builder._outputs)}", tensor)

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        made = self.builder.add(op, *inputs, **attributes)
        self.out(made, op)
        return made

    def graph(self) -> Graph:
        return self.builder.build("bench")


@pytest.fixture(params=["litert", "litert, shuffled", "tflite_runtime"])
def setting(request: pytest.FixtureRequest) -> tuple[Bench, Engine]:
    """An empty bench and an engine to run it on."""
    name, *shuffled = request.param.split(", ")
    return Bench(bool(shuffled)), request.getfixturevalue(name)


def agree(bench: Bench, engine: Engine, tolerance: float = 1e-5) -> None:
    graph = bench.graph()
    expected = run(graph, bench.feeds)

    found = engine(to_tflite(graph, "infer"), bench.feeds)

    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert found[name].shape == value.shape, name
        scale = max(float(np.abs(value).max()), 1.0) if value.dtype == F else 0
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance * scale, err_msg=name)


def image(bench: Bench, *shape: int) -> str:
    """A tensor that is held channel-last when the operator under test reads it."""
    x = bench.input(*shape)
    weight = bench.builder.constant(np.eye(shape[1], dtype=np.float32).reshape(shape[1], shape[1], 1, 1))
    return bench.builder.add("Conv", x, weight, kernel_shape=(1, 1))


def test_unary_functions(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x, positive = bench.input(2, 3, 5), bench.input(2, 3, 5, low=0.1, high=3)
    for op in (
        "Neg",
        "Abs",
        "Sign",
        "Exp",
        "Erf",
        "Tanh",
        "Sigmoid",
        "Relu",
        "Softplus",
        "HardSwish",
        "Floor",
        "Ceil",
    ):
        bench.op(op, x)
    for op in ("Log", "Sqrt", "Reciprocal"):
        bench.op(op, positive)
    bench.op("LeakyRelu", x, alpha=0.2)
    bench.op("Elu", x)
    bench.op("Elu", x, alpha=0.3)
    bench.op("HardSigmoid", x, alpha=0.25, beta=0.4)
    bench.op("Clip", x, bench.scalar(-0.5), bench.scalar(0.25))
    bench.op("Clip", x, "", bench.scalar(0.25))
    bench.op("Clip", x, bench.scalar(0.0), bench.scalar(6.0))
    bench.op("Pow", x, bench.scalar(2.0))
    bench.op("Pow", x, bench.scalar(3.0))
    bench.op("Pow", positive, bench.scalar(0.5))
    bench.op("Pow", positive, bench.scalar(-1.5))
    for op in ("Identity", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Atan", "Floor", "Ceil", "Round", "Softsign"):
        bench.op(op, x)
    for op in ("Asin", "Acos"):
        bench.op(op, bench.input(2, 3, low=-0.99, high=0.99))
    agree(bench, engine)


def test_the_error_function_is_exact_to_rounding(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    bench.op("Erf", bench.feed(np.linspace(-6, 6, 4001, dtype=np.float32)))
    agree(bench, engine, 5e-7)


def test_binary_functions_broadcast(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x, row, column = bench.input(2, 3, 4, 5), bench.input(5), bench.input(3, 1, 1)
    for op in (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Min",
        "Max",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
    ):
        bench.op(op, x, row)
        bench.op(op, column, x)
    bench.op("Equal", x, x)
    bench.op("Max", x, row, column)
    bench.op("Sum", x, row, column)
    bench.op("PRelu", x, column)
    bench.op("Mod", x, bench.input(1, low=0.3, high=0.9), fmod=1)
    agree(bench, engine)


def test_whole_numbers_and_truths(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    labels = bench.feed(np.array([0, 2, 1, 2], np.int32))
    long = bench.feed(np.array([[3], [-7], [5], [0]], np.int64))
    x = bench.input(4, 3)
    positive = bench.op("Greater", x, bench.scalar(0.0))
    small = bench.op("Less", x, bench.scalar(0.5))
    for op in ("And", "Or"):
        bench.op(op, positive, small)
    bench.op("Not", positive)
    bench.op("Where", positive, x, bench.scalar(-3.0))
    bench.op("Cast", positive, to=1)
    bench.op("Cast", x, to=9)
    bench.op("Cast", x, to=6)
    bench.op("Cast", labels, to=7)
    bench.op("Cast", labels, to=1)
    bench.op("Add", long, long)
    bench.op("Mul", long, bench.ints(3))
    bench.op("Div", long, bench.ints(2))
    bench.op("Mod", long, bench.ints(3))
    classes = bench.builder.constant(np.arange(3, dtype=np.int32).reshape(1, 3))
    column = bench.op("Reshape", labels, bench.ints(4, 1))
    bench.op("Equal", column, classes)
    agree(bench, engine)


def test_broadcasts_over_many_axes(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = bench.input(2, 3, 2, 2, 3, 2)
    for shape in (
        (1, 3, 1, 1, 3, 1),
        (2, 1, 1, 2, 3, 1),
        (2, 1, 2, 1, 3, 1),
        (2,),
        (1, 1, 1, 1, 1, 1),
        (3, 2, 2, 3, 2),
    ):
        bench.op("Mul", x, bench.input(*shape))
    bench.op("Where", bench.op("Greater", x, bench.input(2, 1, 2, 1, 3, 1)), x, bench.input(3, 1))
    agree(bench, engine)


def test_elementwise_operators_keep_the_layout_their_inputs_share(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = image(bench, 2, 4, 5, 3)
    y = bench.op("Mul", x, bench.input(1, 4, 1, 1))
    y = bench.op("Add", y, bench.input(2, 4, 5, 3))
    y = bench.op("Relu", y)
    y = bench.op("Sub", y, bench.builder.constant(np.ones((4, 1, 3), np.float32)))
    bench.op("Reshape", y, bench.ints(2, -1))
    agree(bench, engine)


def test_reshapes_in_every_layout(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = image(bench, 2, 6, 4, 3)
    for shape in (
        (2, 72),
        (2, 6, 12),
        (2, 2, 3, 4, 3),
        (12, 12),
        (2, 6, 1, 4, 3),
        (1, 2, 6, 4, 3, 1),
        (48, 3),
        (2, 6, 2, 6),
    ):
        bench.op("Reshape", x, bench.ints(*shape))
    narrow = image(bench, 2, 5, 1, 1)
    bench.op("Reshape", narrow, bench.ints(2, 5))
    bench.op("Squeeze", narrow, bench.ints(2, 3))
    bench.op("Unsqueeze", x, bench.ints(0, 3))
    agree(bench, engine)


def test_transposes_compose(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x, y = image(bench, 2, 6, 4, 3), bench.input(2, 3, 1, 4, 1, 5)
    bench.op("Transpose", x, perm=(0, 2, 3, 1))
    bench.op("Transpose", bench.op("Transpose", x, perm=(3, 1, 0, 2)), perm=(1, 0, 3, 2))
    bench.op("Transpose", y, perm=(5, 4, 3, 2, 1, 0))
    bench.op("Transpose", y, perm=(2, 4, 0, 1, 3, 5))
    bench.op("Transpose", y)
    agree(bench, engine)


def test_joins_and_cuts(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x, plain = image(bench, 2, 6, 7, 5), bench.input(2, 6, 7, 5)
    for axis in range(4):
        bench.op("Concat", x, plain, axis=axis)
    bench.op("Slice", x, bench.ints(1, 0), bench.ints(5, 7), bench.ints(1, 2), bench.ints(2, 3))
    bench.op("Slice", x, bench.ints(-3), bench.ints(2**62), bench.ints(-1))
    bench.op("Slice", x, bench.ints(6, 4), bench.ints(-(2**62), 0), bench.ints(2, 3), bench.ints(-1, -2))
    bench.op("Slice", bench.input(2, 3, 4, 2, 3, 2), bench.ints(1), bench.ints(3), bench.ints(2))
    for part in bench.builder.add("Split", x, bench.ints(1, 2, 3), outputs=3, axis=1):
        bench.out(part)
    agree(bench, engine)


def test_padding(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x, deep = image(bench, 2, 3, 4, 5), bench.input(2, 2, 2, 2, 2, 3)
    bench.op("Pad", x, bench.ints(0, 0, 1, 2, 0, 0, 3, 0), bench.scalar(0.0))
    bench.op("Pad", x, bench.ints(0, 1, 1, 2, 1, 0, 3, 0), bench.scalar(-1.5))
    bench.op("Pad", x, bench.ints(1, 0, 0, 2), bench.scalar(2.0), bench.ints(1, 3))
    bench.op("Pad", x, bench.ints(0, 0, -1, 2, 0, 0, -1, -1), bench.scalar(1.0))
    bench.op("Pad", x, bench.ints(0, 0, 2, 1, 0, 0, 1, 3), mode="reflect")
    bench.op("Pad", x, bench.ints(0, 0, 2, 1, 0, 0, 1, 3), mode="edge")
    bench.op("Pad", deep, bench.ints(0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 2), bench.scalar(0.0))
    agree(bench, engine)


def test_lookups(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = image(bench, 2, 6, 4, 3)
    dynamic = bench.feed(np.array([[1, -1], [0, 2]], np.int64))
    for axis in range(4):
        bench.op("Gather", x, bench.ints(1, 0, -1), axis=axis)
        bench.op("Gather", x, bench.builder.constant(np.array(-2, np.int64)), axis=axis)
    bench.op("Gather", bench.input(5, 3), dynamic, axis=0)
    bench.op("Gather", bench.op("Transpose", bench.input(3, 5), perm=(1, 0)), dynamic, axis=0)
    agree(bench, engine)


def test_reading_and_writing_elements(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = bench.input(4, 3, 5)
    along = bench.feed(np.array([[[0, -1, 3]], [[2, 2, 1]]], np.int64))
    bench.op("GatherElements", x, along, axis=2)
    bench.op("GatherElements", x, along, axis=0)
    updates = bench.input(2, 1, 3)
    bench.op("ScatterElements", x, along, updates, axis=2, reduction="add")
    apart = bench.ints(0, 2, 1)
    apart = bench.builder.add("Reshape", apart, bench.ints(1, 3, 1))
    bench.op("ScatterElements", x, apart, bench.input(1, 3, 1), axis=0)
    pairs = bench.feed(np.array([[0, 2], [-1, 1], [0, 2]], np.int64))
    bench.op("GatherND", x, pairs)
    rows = bench.input(3, 5)
    bench.op("ScatterND", x, pairs, rows, reduction="add")
    bench.op("ScatterND", x, bench.feed(np.array([[3], [1]], np.int64)), bench.input(2, 3, 5))
    labels = bench.feed(np.array([2, 0, -1], np.int64))
    values = bench.builder.constant(np.array([0, 1], np.float32))
    bench.op("OneHot", labels, bench.ints(4), values)
    bench.op("OneHot", labels, bench.ints(4), values, axis=0)
    agree(bench, engine)


def test_running_sums_and_largest_places(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = bench.input(4, 3, 5)
    for axis in (0, 2, -2):
        bench.op("CumSum", x, bench.builder.constant(np.array(axis, np.int64)), exclusive=1)
        bench.op("CumSum", x, bench.builder.constant(np.array(axis, np.int64)), reverse=1)
        bench.op("ArgMax", x, axis=axis)
        bench.op("ArgMin", x, axis=axis, keepdims=0)
    agree(bench, engine)


def test_expand(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    bench.op("Expand", bench.input(3, 1), bench.ints(2, 3, 4))
    bench.op("Expand", bench.input(2, 1, 3, 1, 2, 1), bench.ints(2, 2, 3, 2, 2, 3))
    bench.op("Expand", image(bench, 1, 3, 1, 1), bench.ints(2, 3, 4, 5))
    bench.op("Expand", bench.input(3), bench.ints(1))
    bench.op("Expand", bench.op("Greater", bench.input(2, 1), bench.scalar(0.0)), bench.ints(2, 3))
    agree(bench, engine)


def test_reductions(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = image(bench, 2, 3, 4, 5)
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"):
        for keep in (0, 1):
            bench.op(op, x, bench.ints(2, 3), keepdims=keep)
            bench.op(op, x, bench.ints(1), keepdims=keep)
            bench.op(op, x, bench.ints(0, 3), keepdims=keep)
        bench.op(op, x, keepdims=0)
        bench.op(op, x, bench.ints(0, -2, -1), keepdims=0)
    bench.op("ReduceSum", x, bench.builder.constant(np.zeros(0, np.int64)), noop_with_empty_axes=1)
    agree(bench, engine)


def test_softmax_along_any_axis(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = image(bench, 2, 3, 4, 5)
    for axis in (1, 2, 3, -1):
        bench.op("Softmax", x, axis=axis)
        bench.op("LogSoftmax", x, axis=axis)
    bench.op("Softmax", bench.input(3, 7, low=-40, high=40), axis=1)
    bench.op("LogSoftmax", bench.input(3, 7, low=-40, high=40), axis=1)
    agree(bench, engine)


def test_products(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    a, b, t = bench.input(4, 6), bench.input(6, 5), bench.input(5, 6)
    bench.op("MatMul", a, b)
    bench.op("MatMul", a, bench.builder.add("Transpose", t, perm=(1, 0)))
    bench.op(
        "MatMul",
        bench.builder.add("Transpose", b, perm=(1, 0)),
        bench.builder.add("Transpose", a, perm=(1, 0)),
    )
    bench.op("MatMul", bench.builder.add("Transpose", bench.input(6, 4), perm=(1, 0)), b)
    batch = bench.input(2, 3, 4, 6)
    bench.op("MatMul", batch, b)
    bench.op("MatMul", batch, bench.input(2, 3, 6, 5))
    bench.op("MatMul", batch, bench.input(3, 6, 5))
    bench.op("MatMul", bench.input(1, 1, 4, 6), bench.input(3, 6, 5))
    bench.op("MatMul", batch, bench.builder.add("Transpose", batch, perm=(0, 1, 3, 2)))
    bench.op("MatMul", bench.builder.add("Transpose", batch, perm=(0, 1, 3, 2)), batch)
    heads = bench.builder.add("Transpose", bench.input(2, 4, 3, 6), perm=(0, 2, 1, 3))
    turned = bench.builder.add("Transpose", batch, perm=(0, 1, 3, 2))
    for shape in ((4, 5), (1, 4, 5), (2, 1, 4, 5), (3, 4, 5)):
        bench.op("MatMul", turned, bench.input(*shape))
    bench.op("MatMul", heads, bench.builder.add("Transpose", bench.input(2, 4, 3, 6), perm=(0, 2, 3, 1)))
    bench.op("MatMul", bench.input(2, 2, 2, 3, 4), bench.input(2, 2, 2, 4, 3))
    bench.op("MatMul", batch, bench.input(6))
    bench.op("MatMul", bench.input(4), batch)
    bench.op("MatMul", a, bench.builder.constant(bench.random.normal(size=(6, 5)).astype(np.float32)))
    agree(bench, engine)


@pytest.mark.parametrize("constant", [False, True], ids=["weights as inputs", "weights as constants"])
def test_convolutions(setting: tuple[Bench, Engine], constant: bool) -> None:
    bench, engine = setting

    def weight(*shape: int) -> str:
        value = bench.random.normal(size=shape).astype(np.float32)
        return bench.builder.constant(value) if constant else bench.feed(value)

    x = bench.input(2, 6, 9, 8)
    for out, groups, kernel, attributes in (
        (5, 1, (3, 3), {}),
        (5, 1, (3, 3), {"pads": (1, 1, 1, 1)}),
        (5, 1, (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
        (5, 1, (2, 3), {"pads": (0, 2, 1, 0), "strides": (2, 1)}),
        (5, 1, (3, 3), {"dilations": (2, 1), "pads": (2, 1, 2, 1)}),
        (5, 1, (3, 2), {"auto_pad": "SAME_UPPER", "strides": (2, 3)}),
        (5, 1, (3, 2), {"auto_pad": "SAME_LOWER", "strides": (2, 2)}),
        (5, 1, (1, 5), {}),
        (4, 2, (3, 3), {"pads": (1, 1, 1, 1)}),
        (6, 3, (3, 3), {"strides": (2, 2), "dilations": (1, 1)}),
        (6, 6, (3, 3), {"pads": (1, 1, 1, 1)}),
        (12, 6, (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
        (6, 6, (3, 3), {"pads": (2, 2, 2, 2), "dilations": (2, 2)}),
        (6, 6, (3, 1), {"strides": (2, 1)}),
    ):
        bench.op(
            "Conv", x, weight(out, 6 // groups, *kernel), kernel_shape=kernel, group=groups, **attributes
        )
    bench.op("Conv", x, weight(5, 6, 3, 3), weight(5), kernel_shape=(3, 3))
    line = bench.builder.add("Reshape", bench.input(2, 3, 20), bench.ints(2, 3, 1, 20))
    bench.op("Conv", line, weight(4, 3, 1, 5), kernel_shape=(1, 5), strides=(1, 2), pads=(0, 2, 0, 2))
    agree(bench, engine)


def test_transposed_convolutions(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = bench.input(2, 6, 5, 4)
    for out, groups, kernel, attributes in (
        (3, 1, (3, 3), {}),
        (3, 1, (3, 3), {"pads": (1, 1, 1, 1)}),
        (3, 1, (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
        (3, 1, (3, 3), {"pads": (0, 0, 1, 1), "strides": (2, 2)}),
        (3, 1, (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2), "output_padding": (1, 1)}),
        (3, 1, (2, 2), {"strides": (2, 2)}),
        (3, 1, (2, 3), {"strides": (3, 2), "output_padding": (2, 1), "pads": (0, 1, 0, 0)}),
        (3, 1, (3, 3), {"dilations": (2, 2), "pads": (1, 2, 1, 2)}),
        (2, 2, (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2), "output_padding": (1, 0)}),
        (1, 6, (3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 1)}),
        (2, 6, (3, 3), {"dilations": (1, 2)}),
        (1, 1, (1, 1), {"strides": (2, 2), "pads": (0, 0, 0, 0)}),
    ):
        weight = bench.input(6, out, *kernel)
        bench.op("ConvTranspose", x, weight, kernel_shape=kernel, group=groups, **attributes)
    agree(bench, engine)


def test_pools(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = bench.input(2, 3, 9, 8)
    for attributes in (
        {"kernel_shape": (2, 2), "strides": (2, 2)},
        {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
        {"kernel_shape": (3, 2), "strides": (1, 1), "pads": (1, 0, 1, 1)},
        {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1},
        {"kernel_shape": (1, 3), "strides": (1, 3)},
        {"kernel_shape": (2, 2), "strides": (3, 1)},
    ):
        bench.op("MaxPool", x, **attributes)
        bench.op("AveragePool", x, **attributes)
        if not attributes.get("ceil_mode"):  # engines disagree on what counts behind the declared padding
            bench.op("AveragePool", x, count_include_pad=1, **attributes)
    bench.op("MaxPool", x, kernel_shape=(2, 3), dilations=(2, 2), pads=(1, 1, 1, 1), strides=(1, 2))
    bench.op("GlobalAveragePool", x)
    agree(bench, engine)


def test_resizes(setting: tuple[Bench, Engine]) -> None:
    bench, engine = setting
    x = image(bench, 2, 3, 4, 5)
    for mode in ("nearest", "linear"):
        for transform in ("asymmetric", "half_pixel", "align_corners"):
            options = {"mode": mode, "coordinate_transformation_mode": transform, "nearest_mode": "floor"}
            bench.op("Resize", x, "", "", bench.ints(2, 3, 8, 15), **options)
            bench.op("Resize", x, "", "", bench.ints(2, 3, 6, 3), **options)
    scales = bench.builder.constant(np.array([1, 1, 2, 2], np.float32))
    bench.op(
        "Resize",
        x,
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    agree(bench, engine)
