# SPDX-License-Identifier: Apache-2.0
"""How large the numbers of an integer input may be: what is looked up with them must be there.

Engines disagree about an index outside its table: some stop, some read what lies beside it, and -1 is the
last row. So the bundle says the range, and the runtime checks it, the same on every engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edgefl.errors import EdgeflError
from edgefl.graph import Interpreter
from edgefl.graph.model import Array, Graph, Node

_LOOKUPS = ("Gather", "GatherND", "GatherElements")


def index_limits(graph: Graph) -> dict[str, int]:
    """Input name to the first number from 0 on that some lookup has no row for; other inputs are absent.

    Indices computed from an input are followed by executing what computes them, so a model's own shifting and
    clipping counts.
    """
    limits: dict[str, int] = {}
    for indices, rows in _lookups(graph):
        path = _path(graph, indices)
        if path is None:
            continue
        (name,) = path.inputs
        limit = _limit(path, name, rows)
        if limit is not None:
            limits[name] = min(limit, limits.get(name, limit))
    return limits


def _lookups(graph: Graph) -> Iterator[tuple[str, int]]:
    """Every tensor of indices, and how many rows it may name."""
    for node in graph:
        if node.op in _LOOKUPS and (
            graph.type_of(node.inputs[1]).shape[-1:] == (1,) or node.op != "GatherND"
        ):
            yield node.inputs[1], graph.type_of(node.inputs[0]).shape[_axis(node)]


def _axis(node: Node) -> int:
    return 0 if node.op == "GatherND" else int(np.asarray(node.attributes.get("axis", 0)))


def _path(graph: Graph, tensor: str) -> Graph | None:
    """What computes a tensor, where that is of one integer input alone."""
    producers, wanted, nodes = graph.producers(), [tensor], set[str]()
    inputs = set[str]()
    while wanted:
        name = wanted.pop()
        if name in graph.inputs:
            inputs.add(name)
        elif name in producers and producers[name].outputs[0] not in nodes:
            nodes.add(producers[name].outputs[0])
            wanted += [read for read in producers[name].inputs if read]
    if len(inputs) != 1 or graph.inputs[next(iter(inputs))].dtype.kind not in "iu":
        return None
    return replace(
        graph,
        inputs={name: graph.inputs[name] for name in inputs},
        outputs={tensor: graph.type_of(tensor)},
        nodes=tuple(node for node in graph if node.outputs[0] in nodes),
    )


def _limit(path: Graph, name: str, rows: int) -> int | None:
    """The first number without a row; None where every number has one, or no rule is found."""
    type, (tensor,) = path.inputs[name], path.outputs
    run = Interpreter(path)

    def indices(value: int) -> Array:
        return run({name: np.full(type.shape, value, type.dtype)})[tensor].astype(np.int64)

    def allowed(value: int) -> bool:
        found = indices(value)
        return bool(((found >= 0) & (found < rows)).all())

    try:
        limit = rows - int(indices(0).max(initial=0))
        largest = int(np.iinfo(type.dtype).max)
        fits = 0 < limit <= largest and allowed(0) and allowed(limit - 1)
        return limit if fits and not allowed(limit) else None
    except EdgeflError:
        return None
