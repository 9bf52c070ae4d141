# SPDX-License-Identifier: Apache-2.0
"""What reverse mode itself promises: shared nodes, paths, refusals, ranks."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.converters.autodiff import VJPS, Expr, gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.errors import NotDifferentiable
from edgefl.graph import Graph, TensorType, run
from edgefl.graph.kernels import KERNELS
from tests.converters.autodiff_oracle import normal


def variable(b: GraphBuilder, name: str, *shape: int) -> Expr:
    return Expr(b, b.input(name, TensorType(np.dtype(np.float64), shape)))


def gradient_graph(loss: Expr, *wanted: str) -> Graph:
    found = gradients(loss.builder, loss.name, wanted)
    for name, tensor in found.items():
        loss.builder.output(f"grad/{name}", tensor)
    return loss.builder.build()


def test_a_tensor_read_several_times_receives_the_sum():
    b = GraphBuilder()
    x = variable(b, "x", 3)
    graph = gradient_graph((x * x * x + x).sum(), "x")
    value = normal(3)
    np.testing.assert_allclose(run(graph, {"x": value})["grad/x"], 3 * value**2 + 1)


def test_equal_nodes_are_counted_once_each():
    b = GraphBuilder()
    x = variable(b, "x", 3)
    graph = gradient_graph((x.exp() + x.exp()).sum(), "x")
    value = normal(3)
    np.testing.assert_allclose(run(graph, {"x": value})["grad/x"], 2 * np.exp(value))


def test_an_intermediate_tensor_can_be_wanted_too():
    b = GraphBuilder()
    x = variable(b, "x", 3)
    y = x * 2.0
    found = gradients(b, (y * y).sum().name, ["x", y.name])
    b.output("dx", found["x"])
    b.output("dy", found[y.name])
    value = normal(3)
    made = run(b.build(), {"x": value})
    np.testing.assert_allclose(made["dy"], 4 * value)
    np.testing.assert_allclose(made["dx"], 8 * value)


def test_a_tensor_without_a_path_is_absent():
    b = GraphBuilder()
    x, z = variable(b, "x", 3), variable(b, "z", 3)
    assert set(gradients(b, (x.sum() + 0.0 * z.cast(np.int64).cast(np.float64).sum()).name, ["x", "z"])) == {
        "x"
    }


@pytest.mark.parametrize("op", ["Floor", "Sign", "Round"])
def test_flat_operators_end_paths(op):
    b = GraphBuilder()
    x = variable(b, "x", 3)
    assert gradients(b, x.apply(op).sum().name, ["x"]) == {}


def test_only_what_lies_between_has_to_be_differentiable(monkeypatch):
    monkeypatch.setitem(KERNELS, "Odd", lambda inputs, attributes: (inputs[0],))
    b = GraphBuilder()
    x, z = variable(b, "x", 3), variable(b, "z", 3)
    assert "z" in gradients(b, (x.apply("Odd") * z).sum().name, ["z"])
    with pytest.raises(NotDifferentiable, match="node Odd"):
        gradients(b, (x.apply("Odd") * z).sum().name, ["x", "z"])


def test_a_refusal_names_node_operator_parameters_and_advice(monkeypatch):
    monkeypatch.setitem(KERNELS, "Odd", lambda inputs, attributes: (inputs[0],))
    b = GraphBuilder()
    first, second, head = (variable(b, n, 3) for n in ("body/one/w", "body/two/w", "head/w"))
    odd = Expr(b, b.add("Odd", (first * second).name, name="body/odd"))
    with pytest.raises(NotDifferentiable) as refused:
        gradients(b, (odd * head).sum().name, ["body/one/w", "body/two/w", "head/w"])
    text = str(refused.value)
    assert "node Odd 'body/odd'" in text
    assert "2 trainable parameters: 'body/one/w', 'body/two/w'" in text
    assert "freeze them to train the other 1: trainable='*,!body/one/*,!body/two/*'" in text


def test_a_refusal_says_when_freezing_does_not_help(monkeypatch):
    monkeypatch.setitem(KERNELS, "Odd", lambda inputs, attributes: (inputs[0],))
    b = GraphBuilder()
    loss = variable(b, "w", 3).apply("Odd").sum()
    with pytest.raises(NotDifferentiable, match="has to be replaced in the model"):
        gradients(b, loss.name, ["w"])


def test_a_trained_operand_that_has_to_be_constant_is_refused():
    b = GraphBuilder()
    x, low = variable(b, "x", 3), variable(b, "low")
    with pytest.raises(NotDifferentiable, match="input 'low' depends on a trainable parameter"):
        gradients(b, x.apply("Clip", low).sum().name, ["x", "low"])


@pytest.mark.parametrize("mode", ["wrap", "unheard-of"])
def test_an_unknown_attribute_is_refused(mode, monkeypatch):
    monkeypatch.setitem(KERNELS, "Pad", lambda inputs, attributes: (np.pad(inputs[0], 1),))
    b = GraphBuilder()
    y = variable(b, "x", 3).apply("Pad", Expr(b, b.constant(np.array([1, 1]))), mode=mode)
    with pytest.raises(NotDifferentiable, match=f"mode='{mode}' is not covered"):
        gradients(b, y.sum().name, ["x"])


def test_broadcasting_above_rank_four_is_folded():
    b = GraphBuilder()
    x, scale = variable(b, "x", 2, 3, 2, 3, 2, 3), variable(b, "scale", 2, 1, 2, 1, 2, 1)
    graph = gradient_graph((x * scale).sum(), "x", "scale")
    a, s = normal(2, 3, 2, 3, 2, 3), normal(2, 1, 2, 1, 2, 1)
    made = run(graph, {"x": a, "scale": s})
    np.testing.assert_allclose(made["grad/scale"], a.sum((1, 3, 5), keepdims=True))
    np.testing.assert_allclose(made["grad/x"], np.broadcast_to(s, a.shape))
    for node in graph:
        if node.op == "Mul":
            shapes = {graph.type_of(t).shape for t in node.inputs}
            assert len(shapes) == 1 or max(map(len, shapes)) <= 4


def test_every_gradient_has_a_kernel_for_its_operator():
    assert set(VJPS) <= set(KERNELS)


def test_a_cast_between_floats_carries_the_gradient_back():
    b = GraphBuilder()
    x = variable(b, "x", 3)
    graph = gradient_graph((x.cast(np.float32) * 3.0).sum(), "x")
    made = run(graph, {"x": normal(3)})["grad/x"]
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, [3, 3, 3])


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


NONE = np.zeros(0)
UNCOVERED = {
    "crop": ("Resize", (2, 3), [np.array([0.0, 0.0, 0.5, 0.5]), NONE, integers(2, 2)],
             {"coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop_and_resize is not covered"),
    "axes": ("Resize", (2, 3), [NONE, NONE, integers(6)], {"axes": (1,)}, "axes is not covered"),
    "aspect": ("Resize", (2, 3), [NONE, NONE, integers(4, 9)], {"keep_aspect_ratio_policy": "not_larger"},
               "keep_aspect_ratio_policy"),
    "batched": ("GatherND", (2, 3), [integers(0, 1).reshape(2, 1)], {"batch_dims": 1}, "batch_dims"),
    "product": ("ScatterElements", (3,), [integers(0), np.ones(1)], {"axis": 0, "reduction": "mul"},
                "reduction='mul'"),
    "borders": ("Pad", (5,), [integers(-1, 2)], {"mode": "edge"}, "negative padding"),
    "implicit": ("MaxPool", (1, 1, 4, 4), [], {"kernel_shape": (3, 3), "auto_pad": "SAME_UPPER"}, "auto_pad"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNCOVERED)
def test_uses_that_are_not_covered_are_refused(case, monkeypatch):
    op, shape, others, attributes, message = UNCOVERED[case]
    if case == "borders":
        monkeypatch.setitem(KERNELS, "Pad", lambda inputs, attributes: (np.zeros(6),))
    b = GraphBuilder()
    x = variable(b, "x", *shape)
    y = Expr(b, b.add(op, x.name, *(b.constant(v) for v in others), **attributes))
    with pytest.raises(NotDifferentiable, match=message):
        gradients(b, y.sum().name, ["x"])


def test_an_operand_computed_at_run_time_where_a_constant_is_needed_is_refused():
    b = GraphBuilder()
    x, axes = variable(b, "x", 2, 3), Expr(b, b.input("axes", TensorType(np.dtype(np.int64), (1,))))
    with pytest.raises(NotDifferentiable, match="its input 'axes' is not a constant"):
        gradients(b, x.apply("ReduceSum", axes, keepdims=0).sum().name, ["x"])
