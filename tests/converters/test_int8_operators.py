# SPDX-License-Identifier: Apache-2.0
"""Operators that need care in int8: on stock interpreters, next to the float graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets.pads import finite_pads
from edgefl.converters.targets.quantize import int8_tflite
from edgefl.graph import Graph, TensorType, run

pytest.importorskip("tensorflow")

F = np.dtype(np.float32)
RANDOM = np.random.default_rng(0)
FEEDS = [{"x": RANDOM.normal(size=(1, 3, 9, 9)).astype(np.float32)} for _ in range(32)]


def pooled() -> Graph:
    """Max pooling over a border, of numbers that may all be negative."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (1, 3, 9, 9)))
    weight = b.constant(RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32))
    h = b.add("Sub", b.add("Conv", x, weight, kernel_shape=(3, 3)), b.constant(np.array(4, np.float32)))
    b.output("y", b.add("MaxPool", h, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)))
    return b.build("pooled")


def chosen() -> Graph:
    """A choice between numbers of different sizes."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (1, 3, 9, 9)))
    large = b.add("Mul", x, b.constant(np.array(9, np.float32)))
    above = b.add("Greater", x, b.constant(np.array(0.5, np.float32)))
    b.output("y", b.add("Where", above, large, b.add("Tanh", x)))
    return b.build("chosen")


def kept() -> Graph:
    """A choice between a number and itself, which keeps a gradient from half of the elements."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (1, 3, 9, 9)))
    t = b.add("Tanh", x)
    above = b.add("Greater", x, b.constant(np.array(0.5, np.float32)))
    b.output("y", b.add("Where", above, b.add("Identity", t, name="stop_gradient/kept"), t))
    return b.build("kept")


@pytest.mark.parametrize("engine", ["litert", "tflite_runtime"])
@pytest.mark.parametrize("graph", [pooled(), chosen(), kept()], ids=lambda graph: graph.name)
def test_int8_stays_near_the_float_graph(engine: str, graph: Graph, request: pytest.FixtureRequest) -> None:
    run_tflite: Callable[..., Any] = request.getfixturevalue(engine)
    model = int8_tflite(graph, FEEDS)
    wanted = np.concatenate([run(graph, feed)["y"] for feed in FEEDS[:8]])
    found = np.concatenate([run_tflite(model, feed)["y"] for feed in FEEDS[:8]])

    # A number next to the border of the choice may fall on its other side.
    near = np.abs(found - wanted) < 0.05 * np.abs(wanted).max()
    assert near.mean() > 0.98


def test_a_border_of_the_lowest_value_seen_changes_nothing() -> None:
    graph = pooled()
    changed = finite_pads(graph, FEEDS)

    assert [node.op for node in changed][-2:] == ["Pad", "MaxPool"]
    for feed in FEEDS:
        assert np.array_equal(run(changed, feed)["y"], run(graph, feed)["y"])


def test_pooling_of_the_input_itself_takes_the_input_s_lowest_value() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (1, 3, 9, 9)))
    b.output("y", b.add("MaxPool", x, kernel_shape=(2, 2), pads=(1, 0, 0, 1)))
    graph = b.build("direct")

    assert np.array_equal(run(finite_pads(graph, FEEDS), FEEDS[0])["y"], run(graph, FEEDS[0])["y"])
