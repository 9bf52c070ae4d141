# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch

from edgefl.converters.autodiff import gradients
from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.graph import Graph, run
from edgefl.graph.model import TensorType
from tests.converters.autodiff_oracle import normal

STEPS = 7


def recurrence(x: np.ndarray, w: np.ndarray) -> Graph:
    """`h = tanh(h w + x_t)` over the steps, and the gradient of the sum of the last state."""
    b = GraphBuilder()
    inputs, weight = (Expr(b, b.input(n, TensorType.of(v))) for n, v in (("x", x), ("w", w)))
    h = inputs.slice(0, 0, 1).reshape(x.shape[1:])
    for t in range(1, STEPS):
        h = (h @ weight + inputs.slice(0, t, t + 1).reshape(x.shape[1:])).apply("Tanh")
    found = gradients(b, h.sum().name, ["w", "x"])
    for name, gradient in found.items():
        b.output(f"grad/{name}", gradient)
    return b.build()


def test_a_recurrence_has_one_product_for_its_weight() -> None:
    x, w = normal(STEPS, 3, 4), normal(4, 4)

    graph = recurrence(x, w)

    shapes = [graph.type_of(n.outputs[0]).shape for n in graph if n.op == "MatMul"]
    assert shapes.count((4, 4)) == 1
    made = run(graph, {"x": x, "w": w})
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, w)]
    h = tensors[0][0]
    for t in range(1, STEPS):
        h = torch.tanh(h @ tensors[1] + tensors[0][t])
    h.sum().backward()
    for name, tensor in zip(("x", "w"), tensors, strict=True):
        assert tensor.grad is not None
        np.testing.assert_allclose(made[f"grad/{name}"], tensor.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_operands_that_are_no_transposes_are_joined_side_by_side() -> None:
    b = GraphBuilder()
    shape = TensorType(np.dtype(np.float64), (3, 3))
    w, x = (Expr(b, b.input(name, shape)) for name in "wx")
    # The gradient for `w` of `w @ x_i` is `dy @ x_i^T`: its left operand is no transpose.
    y = (w @ (x * 1.5)) * (w @ (x * 2.0)) + (w @ x) * (w @ (x * 3.0))
    b.output("grad", gradients(b, y.sum().name, ["w"])["w"])
    values = {"w": normal(3, 3), "x": normal(3, 3, seed=1)}

    made = run(b.build(), values)["grad"]

    tw, tx = torch.tensor(values["w"], requires_grad=True), torch.tensor(values["x"])
    ((tw @ (tx * 1.5)) * (tw @ (tx * 2.0)) + (tw @ tx) * (tw @ (tx * 3.0))).sum().backward()
    assert tw.grad is not None
    np.testing.assert_allclose(made, tw.grad.numpy(), rtol=1e-9)


def test_a_bias_of_every_step_is_summed_once() -> None:
    b = GraphBuilder()
    x, bias = normal(STEPS, 3, 4), normal(4, seed=1)
    inputs, shift = (Expr(b, b.input(n, TensorType.of(v))) for n, v in (("x", x), ("bias", bias)))
    h = inputs.slice(0, 0, 1).reshape((3, 4))
    for t in range(1, STEPS):
        h = (h * inputs.slice(0, t, t + 1).reshape((3, 4)) + shift).apply("Tanh")
    b.output("grad", gradients(b, h.sum().name, ["bias"])["bias"])
    graph = b.build()

    made = run(graph, {"x": x, "bias": bias})["grad"]

    assert sum(node.op == "ReduceSum" for node in graph) == 1
    ty, tb = torch.tensor(x), torch.tensor(bias, requires_grad=True)
    h = ty[0]
    for t in range(1, STEPS):
        h = torch.tanh(h * ty[t] + tb)
    h.sum().backward()
    assert tb.grad is not None
    np.testing.assert_allclose(made, tb.grad.numpy(), rtol=1e-9, atol=1e-12)
