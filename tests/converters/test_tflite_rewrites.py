# SPDX-License-Identifier: Apache-2.0
"""What is rewritten on the way to TFLite: labels as places, convolutions as products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.losses import find_loss
from edgefl.graph import Graph, TensorType, run

pytest.importorskip("tensorflow")

from edgefl.converters.autodiff import gradients
from edgefl.converters.targets import to_tflite
from edgefl.converters.targets.lowering import columns
from edgefl.converters.targets.lowering.picks import placed

F, INT = np.dtype(np.float32), np.dtype(np.int32)


def loss_and_gradient(name: str, shape: tuple[int, ...], labels: tuple[int, ...]) -> Graph:
    b = GraphBuilder()
    scores, y = (
        Expr(b, b.input("scores", TensorType(F, shape))),
        Expr(b, b.input("y", TensorType(INT, labels))),
    )
    weight = Expr(b, b.input("weight", TensorType(F, shape[:1])))
    total = (find_loss(name).emit(scores, y, weight) * weight).sum([0])
    b.output("grad", gradients(b, total.name, ["scores"])["scores"])
    b.output("loss", total.name)
    return b.build("loss")


@pytest.mark.parametrize(
    ("name", "shape", "labels"),
    [
        ("softmax_cross_entropy", (5, 4), [3, 0, -1, -100, 2]),
        ("softmax_cross_entropy", (2, 3, 4), [[3, 0, -1], [1, 1, 4]]),
        ("next_token", (2, 3, 4), [[3, 0, -100], [1, 1, 2]]),
    ],
)
@pytest.mark.parametrize("engine", ["", "litert", "tflite_runtime"])
def test_labels_as_places(
    name: str, shape: tuple[int, ...], labels: Any, engine: str, request: pytest.FixtureRequest
) -> None:
    y, random = np.int32(labels), np.random.default_rng(0)
    graph = loss_and_gradient(name, shape, y.shape)
    scores = random.standard_normal(shape, np.float32) * 30
    scores[0, ..., 1] = -np.inf  # a class that cannot be
    feeds = {"scores": scores, "y": y, "weight": random.random(shape[:1], np.float32)}
    expected = run(graph, feeds)

    if engine:
        lite = to_tflite(graph, "step")
        found = request.getfixturevalue(engine)(lite, feeds)
        assert "ONE_HOT" not in lite.operators and "LOG_SOFTMAX" not in lite.operators
    else:
        found = run(placed(graph), feeds)

    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6, err_msg=key)


def convolved(groups: int, size: tuple[int, int], kernel: tuple[int, int], **attributes: Any) -> Graph:
    """A convolution and its gradients, the weight's as one Conv."""
    b = GraphBuilder(correlations=True)
    x = Expr(b, b.input("x", TensorType(F, (2, 4, *size))))
    w = Expr(b, b.input("w", TensorType(F, (6, 4 // groups, *kernel))))
    made = x.apply("Conv", w, kernel_shape=kernel, group=groups, **attributes)
    scaled = made * Expr(b, b.input("dy", TensorType(F, made.shape)))
    found = gradients(b, scaled.sum(range(4)).name, ["x", "w"])
    b.output("y", made.name)
    b.output("grad/x", found["x"])
    b.output("grad/w", found["w"])
    return b.build("convolved")


CASES = {
    "same": convolved(1, (5, 6), (3, 3), pads=(1, 1, 1, 1)),
    "valid": convolved(1, (5, 6), (3, 2)),
    "point": convolved(1, (5, 6), (1, 1)),
    "strided point": convolved(1, (6, 6), (1, 1), strides=(2, 2)),
    "strided": convolved(1, (8, 7), (3, 3), strides=(2, 3), pads=(1, 1, 1, 1)),
    "rows left over": convolved(1, (9, 8), (3, 3), strides=(3, 2)),
    "dilated": convolved(1, (9, 8), (3, 3), dilations=(2, 1), pads=(2, 1, 2, 1)),
    "uneven pads": convolved(1, (7, 9), (4, 2), strides=(2, 1), pads=(0, 1, 2, 0)),
    "whole image": convolved(1, (4, 3), (4, 3)),
    "grouped": convolved(2, (5, 6), (3, 3), pads=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("limit", [columns._MOST_BYTES, 1500], ids=["whole", "parts"])
@pytest.mark.parametrize("case", CASES)
def test_convolutions_as_products(
    case: str, limit: int, litert: Any, tflite_runtime: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_MOST_BYTES", limit)
    graph, random = CASES[case], np.random.default_rng(0)
    feeds = {name: random.standard_normal(type.shape, np.float32) for name, type in graph.inputs.items()}
    expected = run(graph, feeds)

    lite = to_tflite(graph, "step")

    for engine in (litert, tflite_runtime):
        found = engine(lite, feeds)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    if case != "grouped":
        assert not {"CONV_2D", "TRANSPOSE_CONV"} & set(lite.operators)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_a_weight_as_one_convolution_is_the_usual_one(case: str) -> None:
    graph = CASES[case]
    node = next(node for node in graph if node.op == "Conv")
    b = GraphBuilder()
    tensors = {name: b.input(name, type) for name, type in graph.inputs.items()}
    made = Expr(b, b.add("Conv", tensors["x"], tensors["w"], **node.attributes))  # type: ignore[arg-type]
    total = (made * Expr(b, tensors["dy"])).sum(range(4)).name
    b.output("grad/w", gradients(b, total, ["w"])["w"])
    random = np.random.default_rng(1)
    feeds = {name: random.standard_normal(type.shape, np.float32) for name, type in graph.inputs.items()}

    usual, found = run(b.build(), feeds)["grad/w"], run(graph, feeds)["grad/w"]

    np.testing.assert_allclose(found, usual, rtol=1e-4, atol=1e-5)
