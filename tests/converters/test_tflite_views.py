# SPDX-License-Identifier: Apache-2.0
"""Several views of one memory, of which an interpreter without XNNPACK lets one be written over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.targets import to_tflite
from edgefl.graph import Graph, TensorType, run

pytest.importorskip("tensorflow")

Engine = Callable[..., Any]
F = np.dtype(np.float32)
SHAPES = ((24,), (4, 6), (2, 3, 4), (6, 4), (3, 8), (1, 24))


def rotary() -> Graph:
    """What rotary position embeddings do: one view is scaled, another is taken apart."""
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (4, 8)))
    # An input's memory is never written over, that of what is made from it is.
    t = b.add("Add", b.add("Tanh", x), b.add("Sigmoid", x))
    heads = b.add("Reshape", t, b.constant(np.array((4, 2, 4))))
    scaled = b.add("Mul", heads, b.constant(np.arange(4, dtype=np.float32).reshape(1, 1, 4) + 1))
    rows = b.add("Reshape", t, b.constant(np.array((8, 4))))
    first = b.add("Slice", rows, *(b.constant(np.array([n])) for n in (0, 2, 1)))
    second = b.add("Slice", rows, *(b.constant(np.array([n])) for n in (2, 4, 1)))
    turned = b.add("Concat", b.add("Neg", second), first, axis=1)
    b.output("y", b.add("Add", scaled, b.add("Reshape", turned, b.constant(np.array((4, 2, 4))))))
    return b.build("rotary")


def tangle(seed: int) -> Graph:
    """Random views and elementwise operators over 24 numbers; half of the values are read several times."""
    random = np.random.default_rng(seed)
    b = GraphBuilder()
    x = b.input("x", TensorType(F, (24,)))
    values = [b.add("Add", b.add("Tanh", x), b.add("Sigmoid", x))]
    for _ in range(30):
        value = values[random.integers(max(0, len(values) - 6), len(values))]
        if random.random() < 0.5:
            shape = SHAPES[random.integers(len(SHAPES))]
            values.append(b.add("Reshape", value, b.constant(np.array(shape))))
            continue
        other = values[random.integers(len(values))]
        shaped = b.add("Reshape", other, b.constant(np.array(b.type(value).shape)))
        values.append(b.add(("Add", "Sub", "Mul")[random.integers(3)], value, shaped))
    for place, value in enumerate(values[-4:]):
        b.output(f"y{place}", value)
    return b.build(f"tangle-{seed}")


@pytest.mark.parametrize("engine", ["litert", "tflite_runtime"])
@pytest.mark.parametrize("graph", [rotary(), *map(tangle, range(6))], ids=lambda graph: graph.name)
def test_views_keep_their_values(engine: str, graph: Graph, request: pytest.FixtureRequest) -> None:
    random = np.random.default_rng(1)
    feeds = {"x": random.normal(size=graph.inputs["x"].shape).astype(np.float32)}
    run_tflite: Engine = request.getfixturevalue(engine)
    found, wanted = run_tflite(to_tflite(graph, "infer"), feeds), run(graph, feeds)

    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
