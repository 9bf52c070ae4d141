# SPDX-License-Identifier: Apache-2.0
"""What a graph computes from constants alone, computed at conversion: weights stored in few bits, for one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgefl.graph import Graph, Node
from edgefl.graph.interpreter import execute


def settled(graph: Graph) -> Graph:
    """The same function without nodes whose inputs are all constants."""
    known = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph:
        if all(not name or name in known for name in node.inputs):
            with np.errstate(all="ignore"):
                known.update(zip(node.outputs, map(np.asarray, execute(node, known)), strict=False))
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.inputs} | set(graph.outputs)
    return replace(graph, nodes=tuple(nodes), constants={n: v for n, v in known.items() if n in used})
