# SPDX-License-Identifier: Apache-2.0
"""Max pooling whose border is part of the data: minus infinity has no place among 256 steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgefl.converters.targets.activations import float_runner
from edgefl.graph import Array, Graph, Node, TensorType

_BATCHES = 64


def finite_pads(graph: Graph, feeds: Sequence[Mapping[str, Array]]) -> Graph:
    """The graph with max pooling padded by the lowest value that its input takes in the calibration batches.

    Where the input is quantized over the range seen there, nothing lies below that value.
    """
    padded = [node for node in graph if node.op == "MaxPool" and any(_pads(node))]
    if not padded:
        return graph
    lowest = _lowest(graph, {node.inputs[0] for node in padded}, feeds[:_BATCHES])
    constants, types = dict(graph.constants), dict(graph.types)
    nodes: list[Node] = []
    for node in graph:
        padding = _split(node, graph, lowest[node.inputs[0]], constants, types) if node in padded else [node]
        nodes += padding
    return replace(graph, nodes=tuple(nodes), constants=constants, types=types)


def _pads(node: Node) -> list[int]:
    return [int(n) for n in np.atleast_1d(np.asarray(node.attributes.get("pads", 0)))]


def _lowest(graph: Graph, tensors: set[str], feeds: Sequence[Mapping[str, Array]]) -> dict[str, float]:
    inner = {name: graph.type_of(name) for name in sorted(tensors - set(graph.inputs))}
    lowest = {n: min(float(feed[n].min()) for feed in feeds) for n in tensors & set(graph.inputs)}
    run = float_runner(replace(graph, outputs=inner)) if inner else None
    for feed in feeds if run else ():
        for name, value in run(feed).items() if run else ():
            lowest[name] = min(lowest.get(name, np.inf), float(value.min()))
    return lowest


def _split(
    node: Node, graph: Graph, value: float, constants: dict[str, Array], types: dict[str, TensorType]
) -> list[Node]:
    """A Pad, and the pooling without one."""
    x, y = node.inputs[0], node.outputs[0]
    type, pads = graph.type_of(x), _pads(node)
    half = len(pads) // 2
    every = [0, 0, *pads[:half], 0, 0, *pads[half:]]
    constants[f"{y}/pads"] = np.array(every, np.int64)
    constants[f"{y}/lowest"] = np.array(value, type.dtype)
    shape = [n + a + b for n, a, b in zip(type.shape, every[: half + 2], every[half + 2 :], strict=True)]
    types[f"{y}/padded"] = TensorType(type.dtype, tuple(shape))
    kept = {key: given for key, given in node.attributes.items() if key != "pads"}
    return [
        Node("Pad", (x, f"{y}/pads", f"{y}/lowest"), (f"{y}/padded",), {"mode": "constant"}),
        Node("MaxPool", (f"{y}/padded",), node.outputs, kept, node.name),
    ]
