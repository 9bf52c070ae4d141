# SPDX-License-Identifier: Apache-2.0
"""Rounding in training against PyTorch's own fake quantization: values and straight-through gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgefl.converters.autodiff import gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.graft import graft
from edgefl.converters.qat import fake_quantize
from edgefl.graph import Graph, TensorType, run

torch = pytest.importorskip("torch")

F = np.dtype(np.float32)


def values(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dense() -> Graph:
    b = GraphBuilder()
    x, w = b.input("x", TensorType(F, (4, 6))), b.input("w", TensorType(F, (6, 3)))
    b.output("y", b.add("MatMul", x, w))
    return b.build("dense")


def convolution() -> Graph:
    b = GraphBuilder()
    x, w = b.input("x", TensorType(F, (2, 3, 8, 8))), b.input("w", TensorType(F, (5, 3, 3, 3)))
    b.output("y", b.add("Conv", x, w, kernel_shape=(3, 3)))
    return b.build("convolution")


def gradient(graph: Graph, feeds: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The output, and the gradient of its sum of squares."""
    b = GraphBuilder()
    bound = {name: b.input(name, type) for name, type in graph.inputs.items()}
    y = graft(b, graph, bound, ["y"])["y"]
    total = b.add("ReduceSum", b.add("Mul", y, y), keepdims=0)
    found = gradients(b, total, list(bound))
    b.output("y", y)
    for name, tensor in found.items():
        b.output(f"grad/{name}", tensor)
    made = run(b.build("gradient"), feeds)
    return made["y"], {name: made[f"grad/{name}"] for name in found}


def fake_weight(w: Any, axis: int) -> Any:
    others = tuple(a for a in range(w.ndim) if a != axis)
    scale = w.detach().abs().amax(others) / 127
    return torch.fake_quantize_per_channel_affine(
        w, scale, torch.zeros(w.shape[axis], dtype=torch.int32), axis, -127, 127
    )


def fake_activation(x: Any) -> Any:
    scale = float(x.detach().max().clamp(min=0) - x.detach().min().clamp(max=0)) / 255
    return torch.fake_quantize_per_tensor_affine(x, scale, 0, -255, 255)


@pytest.mark.parametrize(
    ("graph", "x", "w", "axis", "product"),
    [
        (dense(), values(4, 6), values(6, 3, seed=1), 1, lambda x, w: x @ w),
        (convolution(), values(2, 3, 8, 8), values(5, 3, 3, 3, seed=1), 0, lambda x, w: torch.conv2d(x, w)),
    ],
    ids=["dense", "convolution"],
)
def test_values_and_gradients_are_pytorch_s(graph: Graph, x: Any, w: Any, axis: int, product: Any) -> None:
    y, found = gradient(fake_quantize(graph, ["w"], ["x"]), {"x": x, "w": w})
    tx, tw = torch.tensor(x, requires_grad=True), torch.tensor(w, requires_grad=True)
    wanted = product(fake_activation(tx), fake_weight(tw, axis))
    (wanted * wanted).sum().backward()

    assert np.allclose(y, wanted.detach(), rtol=1e-4, atol=1e-4)
    assert np.allclose(found["w"], tw.grad, rtol=1e-4, atol=1e-3)
    assert np.allclose(found["x"], tx.grad, rtol=1e-4, atol=1e-3)


def test_frozen_products_keep_full_precision() -> None:
    b = GraphBuilder()
    x, w = b.input("x", TensorType(F, (4, 6))), b.input("w", TensorType(F, (3, 2)))
    h = b.add("MatMul", x, b.constant(values(6, 3)))
    b.output("y", b.add("MatMul", h, w))
    graph = b.build("frozen")

    assert fake_quantize(graph, ["w"], ["x"]).nodes[0] == graph.nodes[0]


def test_a_channel_of_zeros_stays_zero() -> None:
    x, w = values(4, 6), values(6, 3, seed=1)
    w[:, 1] = 0
    y, found = gradient(fake_quantize(dense(), ["w"], ["x"]), {"x": x, "w": w})

    assert not y[:, 1].any()
    assert all(np.isfinite(value).all() for value in found.values())
