# SPDX-License-Identifier: Apache-2.0
"""What the reader takes from other writers' files, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgefl.errors import GraphError
from edgefl.graph import TensorType, read_onnx
from edgefl.graph.onnx_schema import DTYPES

pytest.importorskip("onnx", reason="the files are made with the onnx package")
from onnx import TensorProto, helper, numpy_helper


def model(*nodes: Any, inputs: Any = None, outputs: Any = None, opset: int = 18, **graph: Any) -> Any:
    """A model over float32 `x` and `y` of shape [2], unless said otherwise."""
    inputs = [helper.make_tensor_value_info("x", 1, [2])] if inputs is None else inputs
    outputs = [helper.make_tensor_value_info("y", 1, [2])] if outputs is None else outputs
    made = helper.make_graph(nodes or [helper.make_node("Relu", ["x"], ["y"])], "g", inputs, outputs, **graph)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def refuses(proto: Any, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        read_onnx(proto.SerializeToString())


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_constants_in_either_storage(code: int, raw: bool) -> None:
    value = np.array([[0, 1, 2], [3, 4, 5]]).astype(DTYPES[code])
    if raw:
        tensor = numpy_helper.from_array(value, "c")
    else:
        tensor = helper.make_tensor("c", code, value.shape, value.reshape(-1).tolist())
    outputs = [helper.make_tensor_value_info("y", code, [2, 3])]
    proto = model(
        helper.make_node("Identity", ["c"], ["y"]), inputs=[], outputs=outputs, initializer=[tensor]
    )

    constant = read_onnx(proto.SerializeToString()).constants["c"]

    assert constant.dtype == value.dtype
    np.testing.assert_array_equal(constant, value)


def test_negative_numbers_in_typed_fields() -> None:
    tensors = [helper.make_tensor(f"c{code}", code, [2], [-7, 5]) for code in (3, 5, 6, 7)]
    graph = read_onnx(model(initializer=tensors).SerializeToString())

    assert [constant.tolist() for constant in graph.constants.values()] == [[-7, 5]] * 4


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value_float": 0.5}, np.array(0.5, np.float32)),
        ({"value_int": 3}, np.array(3)),
        ({"value_floats": [0.5, 1.5]}, np.array([0.5, 1.5], np.float32)),
        ({"value_ints": [3, 4]}, np.array([3, 4])),
        ({"value": numpy_helper.from_array(np.array([True]))}, np.array([True])),
    ],
)
def test_constant_nodes_become_constants(attribute: dict[str, Any], expected: Any) -> None:
    proto = model(
        helper.make_node("Constant", [], ["c"], **attribute), helper.make_node("Relu", ["x"], ["y"])
    )

    graph = read_onnx(proto.SerializeToString())

    assert graph.operators() == {"Relu": 1}
    assert graph.constants["c"].dtype == expected.dtype
    np.testing.assert_array_equal(graph.constants["c"], expected)


def filled_with(shape: Any, **attributes: Any) -> Any:
    """A model that adds a ConstantOfShape `z` to its input."""
    nodes = (
        helper.make_node("ConstantOfShape", ["shape"], ["z"], **attributes),
        helper.make_node("Add", ["x", "z"], ["y"]),
    )
    return model(*nodes, initializer=[numpy_helper.from_array(shape, "shape")])


def test_tensors_of_one_value_occupy_one_element() -> None:
    value = numpy_helper.from_array(np.array([3], np.float32))

    graph = read_onnx(filled_with(np.array([2000, 2]), value=value).SerializeToString())

    assert graph.operators() == {"Add": 1}
    assert graph.constants["z"].shape == (2000, 2) and graph.constants["z"].strides == (0, 0)
    assert graph.constants["z"][7, 1] == 3 and graph.constants["z"].dtype == np.float32


@pytest.mark.parametrize(
    "shape", [np.array([[2]]), np.array([2], np.int32), np.array([-2]), np.array([1 << 40, 4])]
)
def test_shapes_that_are_none_are_refused(shape: Any) -> None:
    refuses(filled_with(shape), "shape")


def test_types_come_from_value_info() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    proto = model(*nodes, value_info=[helper.make_tensor_value_info("h", 1, [2])])

    assert read_onnx(proto.SerializeToString()).type_of("h") == TensorType(np.dtype(np.float32), (2,))


@pytest.mark.parametrize("shape", [None, ["n"], [None]])
def test_output_shapes_left_open_are_computed(shape: Any) -> None:
    proto = model(
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Concat", ["s", "s"], ["t"], axis=0),
        helper.make_node("Expand", ["x", "t"], ["y"]),
        outputs=[helper.make_tensor_value_info("y", 1, shape)],
    )

    assert read_onnx(proto.SerializeToString()).outputs["y"].shape == (2, 2)


def test_an_initializer_among_the_inputs_is_a_constant() -> None:
    values = [helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "c")]
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "c")

    graph = read_onnx(model(inputs=values, initializer=[tensor]).SerializeToString())

    assert list(graph.inputs) == ["x"]
    assert list(graph.constants) == ["c"]


def test_other_opsets_are_refused_with_the_way_out() -> None:
    refuses(model(opset=17), "opset 17.*convert_version")
    refuses(model(opset=21), "opset 21.*convert_version")


@pytest.mark.parametrize("shape", [["batch", 2], [None, 2], None])
def test_symbolic_inputs_are_refused_by_name(shape: Any) -> None:
    refuses(model(inputs=[helper.make_tensor_value_info("x", 1, shape)]), "input 'x'")


def test_other_domains_are_refused_by_name() -> None:
    node = helper.make_node("FusedMatMul", ["x", "x"], ["y"], domain="com.microsoft")
    refuses(model(node), r"FusedMatMul.*'com\.microsoft'")


def test_external_data_is_refused() -> None:
    tensor = TensorProto(name="c", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    refuses(model(initializer=[tensor]), "'c'.*another file")


@pytest.mark.parametrize("dims", [[-1], [2, -3], [1 << 40, 1 << 40], [0, -1], [1] * 40, [3], []])
def test_dimensions_that_cannot_be_are_refused(dims: list[int]) -> None:
    tensor = TensorProto(name="c", data_type=1, dims=dims, raw_data=bytes(8))
    refuses(model(initializer=[tensor]), "'c'")


@pytest.mark.parametrize("dims", [[-1], [1 << 62, 1 << 62], [1] * 40])
def test_input_dimensions_that_cannot_be_are_refused(dims: list[int]) -> None:
    refuses(model(inputs=[helper.make_tensor_value_info("x", 1, dims)]), "input 'x'")


def test_element_types_edgefl_does_not_hold_are_refused() -> None:
    for code in (8, 14, 16, 17, 99):
        refuses(model(initializer=[TensorProto(name="c", data_type=code, dims=[0])]), f"'c'.*type {code}")
    refuses(model(inputs=[helper.make_tensor_value_info("x", TensorProto.STRING, [2])]), "'x'.*type 8")


def test_values_too_wide_for_their_type_are_refused() -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.INT8, dims=[1], int32_data=[300])
    refuses(model(initializer=[tensor]), "does not fit int8")


def test_data_given_twice_is_refused() -> None:
    tensor = TensorProto(name="c", data_type=1, dims=[1], raw_data=bytes(4), float_data=[0.0])
    refuses(model(initializer=[tensor]), "twice")


def test_data_in_the_wrong_field_is_refused() -> None:
    refuses(model(initializer=[TensorProto(name="c", data_type=1, dims=[1], int64_data=[1])]), "field")


def test_names_defined_twice_are_refused() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "c")
    value = helper.make_tensor_value_info("x", 1, [2])
    refuses(model(relu, relu), "'y' is defined twice")
    refuses(model(relu, initializer=[tensor, tensor]), "'c' is defined twice")
    refuses(model(relu, inputs=[value, value]), "'x' is defined twice")
    refuses(model(relu, outputs=[helper.make_tensor_value_info("y", 1, [2])] * 2), "'y' is listed twice")
    refuses(model(helper.make_node("Elu", ["x"], ["y"], alpha=1.0), inputs=[], initializer=[]), "'x' before")


def test_nodes_out_of_order_are_refused() -> None:
    nodes = [helper.make_node("Neg", ["h"], ["y"]), helper.make_node("Relu", ["x"], ["h"])]
    refuses(model(*nodes), "'h' before")


def test_outputs_nothing_makes_are_refused() -> None:
    refuses(model(outputs=[helper.make_tensor_value_info("z", 1, [2])]), "'z'")


def test_subgraphs_are_refused_by_node() -> None:
    body = model().graph
    node = helper.make_node("If", ["x"], ["y"], "choice", then_branch=body, else_branch=body)
    refuses(model(node), "If 'choice'.*subgraph")


def test_local_functions_are_refused() -> None:
    proto = model()
    proto.functions.append(helper.make_function("d", "f", ["a"], ["b"], [], []))
    refuses(proto, "local functions")


def test_sparse_initializers_are_refused() -> None:
    proto = model()
    proto.graph.sparse_initializer.add()
    refuses(proto, "sparse")


def test_attributes_given_twice_are_refused() -> None:
    node = helper.make_node("Elu", ["x"], ["y"], alpha=1.0)
    node.attribute.append(node.attribute[0])
    refuses(model(node), "'alpha' is given twice")
