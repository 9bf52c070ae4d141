# SPDX-License-Identifier: Apache-2.0
"""Constants whose elements are all equal, stored as one: the zeros that a table's gradient is added to, say.

ConstantOfShape makes them when an engine loads the file; `read_onnx` sees constants again, which occupy one
element in memory too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgefl.graph import Array, Graph, Node

_MIN_BYTES = 1024
"""What is smaller gains little over the node and the shape that take its place."""


def filled(graph: Graph) -> Graph:
    """The same function, large uniform constants made by nodes in front of the others."""
    nodes: list[Node] = []
    constants: dict[str, Array] = {}
    for name, value in graph.constants.items():
        if value.nbytes < _MIN_BYTES or not _is_uniform(value):
            constants[name] = value
            continue
        shape = f"{name}/shape"
        constants[shape] = np.array(value.shape, np.int64)
        nodes.append(Node("ConstantOfShape", (shape,), (name,), {"value": value.reshape(-1)[:1].copy()}))
    return replace(graph, nodes=(*nodes, *graph.nodes), constants=constants) if nodes else graph


def _is_uniform(value: Array) -> bool:
    """Whether all elements have the same bits: -0 is not 0 here, and a NaN is itself."""
    if not any(value.strides):
        return True
    bits = np.ascontiguousarray(value).reshape(-1).view(f"u{value.dtype.itemsize}")
    return bool(bits[0] == bits[-1]) and bool((bits == bits[0]).all())
