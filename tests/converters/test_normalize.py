# SPDX-License-Identifier: Apache-2.0
"""Normalised graphs compute the same; the ONNX project's operator cases and onnxruntime are the oracles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper, parser

from edgefl.converters.normalize import REWRITES, normalize, simplify
from edgefl.errors import UnsupportedOperator
from edgefl.graph import OPSET, Graph, Node, TensorType, read_onnx, run

CASES = Path(onnx.__file__).parent / "backend" / "test" / "data" / "node"
SHAPES = {"Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Pad": (1, 3), "Tile": (1,), "Split": (1,)}
SHAPES |= {"Squeeze": (1,), "Unsqueeze": (1,), "CumSum": (1,), "Trilu": (1,), "OneHot": (1,), "TopK": (1,)}
SHAPES |= {
    "Range": (0, 1, 2),
    "ConstantOfShape": (0,),
    "Compress": (1,),
    "NonZero": (0,),
    "Resize": (1, 2, 3),
}
SHAPES |= {"Col2Im": (1, 2)}
SHAPES |= {"RNN": (4,), "GRU": (4,), "LSTM": (4,), "ReverseSequence": (1,)}
SHAPES |= {op: (1,) for op in REWRITES if op.startswith("Reduce")}
REFUSED = (
    *("test_batchnorm_epsilon_training_mode", "test_batchnorm_example_training_mode"),
    *("test_einsum_batch_diagonal", "test_averagepool_2d_dilations"),
    "test_col2im_5d",
    *("test_maxpool_with_argmax_2d_precomputed_pads", "test_maxpool_with_argmax_2d_precomputed_strides"),
)


def cases() -> Iterator[str]:
    """Names of cases with one node that has a rewrite, in types edgefl's graphs have."""
    for folder in sorted(CASES.iterdir()):
        model = onnx.load(folder / "model.onnx")
        node, version = model.graph.node[0], model.opset_import[0].version
        if (
            len(model.graph.node) > 1
            or node.domain
            or node.op_type not in REWRITES
            or _unusual(folder.name, model)
        ):
            continue
        if version >= OPSET or _since(node.op_type, version) == _since(node.op_type, OPSET):
            yield folder.name


def _since(op: str, version: int) -> int:
    return int(onnx.defs.get_schema(op, version).since_version)


def _unusual(name: str, model: Any) -> bool:
    values = [*model.graph.input, *model.graph.output]
    codes = {v.type.tensor_type.elem_type for v in values}
    kinds = {helper.tensor_dtype_to_np_dtype(c).name if c else "none" for c in codes}
    strange = (
        kinds - {"float32", "float64", "int32", "int64", "uint8", "bool"}
        or {8, 16} & codes
        or max(codes) > 16
    )
    skipped = (
        "3d_d",
        "3d_default",
        "conv3d",
        "convtranspose_3d",
        "training_dropout",
        "crop_and_resize",
        "unique",
    )
    return bool(strange) or any(word in name for word in skipped) or name in REFUSED


def case(name: str) -> tuple[Any, dict[str, Any], list[Any]]:
    """The model in opset 18 with its shape inputs made constant, its other inputs and its outputs."""
    model = onnx.load(CASES / name / "model.onnx")
    model.opset_import[0].version = OPSET
    node = model.graph.node[0]
    data = {v.name: _tensor(name, "input", i) for i, v in enumerate(model.graph.input)}
    for index in SHAPES.get(node.op_type, ()):
        if index < len(node.input) and node.input[index]:
            value = data.pop(node.input[index])
            model.graph.initializer.append(numpy_helper.from_array(value, node.input[index]))
    return model, data, [_tensor(name, "output", i) for i in range(len(model.graph.output))]


def _tensor(name: str, kind: str, index: int) -> Any:
    return numpy_helper.to_array(onnx.load_tensor(CASES / name / "test_data_set_0" / f"{kind}_{index}.pb"))


@pytest.mark.parametrize("name", list(cases()))
def test_rewritten_operator_passes_the_standard_case(name: str) -> None:
    model, data, expected = case(name)

    graph = normalize(read_onnx(model.SerializeToString()))

    made = run(graph, data)
    for value, want in zip(model.graph.output, expected, strict=True):
        np.testing.assert_allclose(made[value.name], want, rtol=1e-4, atol=1e-5)
        assert made[value.name].dtype == want.dtype
    assert normalize(graph).operators() == graph.operators()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    model, _, _ = case(name)

    with pytest.raises(UnsupportedOperator, match=f"node {model.graph.node[0].op_type}"):
        normalize(read_onnx(model.SerializeToString()))


def text(source: str) -> Any:
    """A model in opset 18 from ONNX's text format."""
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : {OPSET}]> {source}')


def check(source: str, **data: Any) -> Graph:
    """onnxruntime on the original agrees with NumPy on the normalised graph, which is returned."""
    model = text(source)
    engine = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = engine.run(None, data)
    graph = normalize(read_onnx(model.SerializeToString()))
    made = run(graph, data)
    for value, want in zip(model.graph.output, expected, strict=True):
        np.testing.assert_allclose(made[value.name], want, rtol=1e-4, atol=1e-5)
    return graph


def normal(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_gemm_becomes_a_product_and_a_sum() -> None:
    graph = check(
        """m (float[3,4] x, float[5,4] w, float[5] c) => (float[3,5] y)
        { y = Gemm<alpha: float = 0.5, beta: float = 2.0, transB: int = 1>(x, w, c) }""",
        x=normal(3, 4),
        w=normal(5, 4),
        c=normal(5),
    )

    assert graph.operators() == {"Add": 1, "MatMul": 1, "Mul": 2, "Transpose": 1}


def test_a_convolution_of_one_axis_runs_along_an_image_one_row_high() -> None:
    graph = check(
        """m (float[2,4,9] x, float[6,2,3] w, float[6] c) => (float[2,6,5] y)
        { y = Conv<group: int = 2, strides: ints = [2], pads: ints = [2, 1]>(x, w, c) }""",
        x=normal(2, 4, 9),
        w=normal(6, 2, 3),
        c=normal(6),
    )

    conv = next(node for node in graph if node.op == "Conv")
    assert conv.attributes["kernel_shape"] == (1, 3)
    assert conv.attributes["pads"] == (0, 2, 0, 1)
    assert len(conv.inputs) == 2


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_automatic_padding_of_pools(operator: str, mode: str) -> None:
    size = "3,3" if mode == "VALID" else "4,4"
    source = f"""m (float[1,2,8,7] x) => (float[1,2,{size}] y)
    {{ y = {operator}<kernel_shape: ints = [3,2], strides: ints = [2,2], auto_pad: string = "{mode}">(x) }}"""

    check(source, x=normal(1, 2, 8, 7))


@pytest.mark.parametrize("counted", [0, 1])
@pytest.mark.parametrize("size", [7, 8, 9])
def test_pools_that_round_up(size: int, counted: int) -> None:
    import torch

    x = normal(1, 2, size, size)
    pool = torch.nn.AvgPool2d(3, stride=3, padding=1, ceil_mode=True, count_include_pad=bool(counted))
    expected = pool(torch.from_numpy(x)).numpy()
    node = Node(
        "AveragePool",
        ("x",),
        ("y",),
        {
            "kernel_shape": (3, 3),
            "strides": (3, 3),
            "pads": (1,) * 4,
            "ceil_mode": 1,
            "count_include_pad": counted,
        },
    )
    type = TensorType.of(x)

    graph = normalize(Graph({"x": type}, {"y": TensorType.of(expected)}, (node,)))

    np.testing.assert_allclose(run(graph, {"x": x})["y"], expected, rtol=1e-5, atol=1e-6)


def test_shape_arithmetic_disappears() -> None:
    graph = check(
        """m (float[2,3,4] x) => (float[2,12] y)
        <int64[1] minus = {-1}, int64[1] zero = {0}>
        {
            s = Shape(x)
            n = Gather<axis: int = 0>(s, zero)
            target = Concat<axis: int = 0>(n, minus)
            y = Reshape(x, target)
        }""",
        x=normal(2, 3, 4),
    )

    assert graph.operators() == {"Reshape": 1}


def test_transposes_around_element_wise_operators_cancel() -> None:
    graph = check(
        """m (float[2,3,4,5] x, float[3] scale) => (float[2,3,4,5] y)
        <float[1] half = {0.5}>
        {
            t = Transpose<perm: ints = [0,2,3,1]>(x)
            a = Relu(t)
            b = Mul(a, scale)
            c = Add(b, half)
            d = Add(c, t)
            y = Transpose<perm: ints = [0,3,1,2]>(d)
        }""",
        x=normal(2, 3, 4, 5),
        scale=normal(3),
    )

    assert "Transpose" not in graph.operators()


def test_transposes_sink_through_reductions_slices_pads_and_joins() -> None:
    graph = check(
        """m (float[2,3,4,5] x) => (float[2,7] y)
        <int64[2] space = {1, 2}, int64[1] one = {1}, int64[1] four = {4}, int64[8] pads = {0,0,0,0,0,0,1,0}>
        {
            t = Transpose<perm: ints = [0,2,3,1]>(x)
            p = Pad(t, pads)
            s = Slice(p, one, four, one)
            q = Concat<axis: int = 3>(s, s, s)
            r = ReduceMean<keepdims: int = 0>(q, space)
            first = Constant<value_ints: ints = [0]>()
            seven = Constant<value_ints: ints = [7]>()
            y = Slice(r, first, seven, one)
        }""",
        x=normal(2, 3, 4, 5),
    )

    assert "Transpose" not in graph.operators()


_ORDER = st.permutations(range(4))


@given(_ORDER, _ORDER, st.lists(st.sampled_from([1, 2, 3]), min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_composed_transposes_move_the_same_elements(one: list[int], two: list[int], shape: list[int]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    nodes = (
        Node("Transpose", ("x",), ("a",), {"perm": tuple(one)}),
        Node("Relu", ("a",), ("b",)),
        Node("Transpose", ("b",), ("y",), {"perm": tuple(two)}),
    )
    expected = x.transpose(one).transpose(two)

    graph = normalize(Graph({"x": TensorType.of(x)}, {"y": TensorType.of(expected)}, nodes))

    np.testing.assert_array_equal(run(graph, {"x": x})["y"], expected)
    assert graph.operators().get("Transpose", 0) <= 1


def test_a_known_index_becomes_a_slice() -> None:
    graph = check(
        """m (float[3,2,4] x) => (float[2,4] y)
        <int64 last = {-1}>
        { y = Gather<axis: int = 0>(x, last) }""",
        x=normal(3, 2, 4),
    )

    assert graph.operators() == {"Reshape": 1, "Slice": 1}


@pytest.mark.parametrize(
    "equation", ["bij,bjk->bik", "ij,kj->ik", "bhid,bhjd->bhij", "bi,j->bij", "abc,cd->abd"]
)
def test_einsum_becomes_a_product(equation: str) -> None:
    size = dict(zip("abcdhijk", (2, 3, 4, 5, 2, 3, 4, 5), strict=True))
    left, right = (normal(*(size[c] for c in term)) for term in equation.partition("->")[0].split(","))
    expected = np.einsum(equation, left, right)
    node = Node("Einsum", ("a", "b"), ("y",), {"equation": equation})
    graph = Graph(
        {"a": TensorType.of(left), "b": TensorType.of(right)}, {"y": TensorType.of(expected)}, (node,)
    )

    made = run(normalize(graph), {"a": left, "b": right})["y"]

    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


def test_a_shape_that_depends_on_data_is_refused() -> None:
    model = text("m (float[6] x, int64[2] s) => (float[2,3] y) { y = Reshape(x, s) }")

    with pytest.raises(UnsupportedOperator, match=r"node Reshape 'y': input 1 depends on the data"):
        normalize(read_onnx(model.SerializeToString()))


def test_nodes_keep_the_names_of_what_they_come_from() -> None:
    x = normal(2, 3)
    node = Node("Mish", ("x",), ("y",), {}, "activation")

    graph = normalize(Graph({"x": TensorType.of(x)}, {"y": TensorType.of(x)}, (node,)))

    assert {n.name for n in graph} == {"activation"}


def test_simplifying_twice_changes_nothing() -> None:
    graph = check(
        "m (float[2,3] x) => (float[3,2] y) { a = Transpose(x) b = Relu(a) y = Softmax(b) }",
        x=normal(2, 3),
    )

    assert simplify(graph).operators() == graph.operators()


def test_a_sum_of_padded_pieces_is_joined() -> None:
    graph = check(
        """m (float[2,1] a, float[2,2] b, float[2,1] c) => (float[2,6] y)
        <int64[4] pa = {0,1,0,4}, int64[4] pb = {0,2,0,2}, int64[4] pc = {0,5,0,0}>
        {
            first = Pad(a, pa)
            second = Pad(b, pb)
            third = Pad(c, pc)
            sum = Add(third, first)
            y = Add(sum, second)
        }""",
        a=normal(2, 1),
        b=normal(2, 2),
        c=normal(2, 1),
    )

    assert graph.operators() == {"Concat": 1}


def test_overlapping_pieces_are_still_added() -> None:
    graph = check(
        """m (float[2] a, float[2] b) => (float[3] y)
        <int64[2] after = {0,1}, int64[2] before = {1,0}>
        { first = Pad(a, after) second = Pad(b, before) y = Add(first, second) }""",
        a=normal(2),
        b=normal(2),
    )

    assert graph.operators()["Add"] == 1
