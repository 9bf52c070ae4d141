# SPDX-License-Identifier: Apache-2.0
"""Small graphs and feeds for the tests of this folder."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np

from edgefl.graph import Array, Attribute, Graph, Node, TensorType

F4 = np.dtype(np.float32)


def one_node(
    op: str, inputs: dict[str, Array], outputs: dict[str, TensorType], **attributes: Attribute
) -> Graph:
    """A graph of a single node over the arrays given."""
    node = Node(op, tuple(inputs), tuple(outputs), attributes, op.lower())
    return Graph({name: TensorType.of(array) for name, array in inputs.items()}, outputs, (node,))


def small_cnn() -> Graph:
    """Conv, activation, pool, dense layer and softmax with constants: float32 `[2, 1, 8, 8]` to `[2, 3]`."""
    rng = np.random.default_rng(0)
    nodes = (
        Node("Conv", ("x", "w", "b"), ("c",), {"pads": (1, 1, 1, 1)}, "conv"),
        Node("LeakyRelu", ("c",), ("r",), {"alpha": 0.25}, "act"),
        Node("MaxPool", ("r",), ("p",), {"kernel_shape": (2, 2), "strides": (2, 2)}, "pool"),
        Node("Reshape", ("p", "shape"), ("f",), {}, "flat"),
        Node("MatMul", ("f", "k"), ("h",), {}, "dense"),
        Node("Softmax", ("h",), ("y",), {"axis": -1}, "softmax"),
    )
    constants = {
        "w": rng.normal(size=(4, 1, 3, 3)).astype(F4),
        "b": rng.normal(size=4).astype(F4),
        "shape": np.array([2, -1]),
        "k": rng.normal(size=(64, 3)).astype(F4),
    }
    inputs = {"x": TensorType(F4, (2, 1, 8, 8))}
    types = {"c": TensorType(F4, (2, 4, 8, 8)), "h": TensorType(F4, (2, 3)), **inputs}
    return Graph(inputs, {"y": TensorType(F4, (2, 3))}, nodes, constants, types, "small")


def small_input() -> dict[str, Array]:
    return {"x": np.random.default_rng(1).normal(size=(2, 1, 8, 8)).astype(F4)}


def peak_bytes(action: Callable[[], object]) -> int:
    """The most memory an action holds at a time beyond what was held before."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
