# SPDX-License-Identifier: Apache-2.0
"""Pairs of nodes that onnxruntime's optimizer would make one of, and compute wrongly.

It folds a Pad with zeros into the pool that alone reads it. A maximum pool's own padding is below everything,
so zeros that were greater than what is beside them are lost (every release from 1.17 to 1.31); an average
pool's own padding does not count where `count_include_pad` is 0 (1.19 and 1.20). A Pad that names its axes,
here all of them, is left alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from edgefl.graph import Graph, Node

_AXES = "/axes"


def apart(graph: Graph) -> Graph:
    """The same graph, its Pads kept out of the pools after them."""
    reads = Counter(name for node in graph for name in node.inputs)
    pools = {node.inputs[0] for node in graph if _own_padding_differs(node)}
    wanted = [
        node
        for node in graph
        if node.op == "Pad"
        and pools.issuperset(node.outputs)
        and reads[node.outputs[0]] == 1
        and len(node.inputs) < 4
        and _adds_zeros(node, graph)
    ]
    if not wanted:
        return graph
    axes = {f"{n.outputs[0]}{_AXES}": np.arange(len(graph.type_of(n.inputs[0]).shape)) for n in wanted}
    nodes = [_named(node) if node in wanted else node for node in graph]
    return replace(graph, nodes=tuple(nodes), constants={**graph.constants, **axes})


def _own_padding_differs(node: Node) -> bool:
    average = node.op == "AveragePool" and not node.attributes.get("count_include_pad", 0)
    return average or node.op == "MaxPool"


def _adds_zeros(node: Node, graph: Graph) -> bool:
    value = node.inputs[2] if len(node.inputs) > 2 else ""
    constant = node.attributes.get("mode", "constant") == "constant"
    return constant and (not value or not np.any(graph.constants.get(value, 1)))


def _named(node: Node) -> Node:
    x, pads, value = (*node.inputs, "", "")[:3]
    return replace(node, inputs=(x, pads, value, f"{node.outputs[0]}{_AXES}"))
