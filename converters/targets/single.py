# SPDX-License-Identifier: Apache-2.0
"""Graphs for deployment: the batch set to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgefl.errors import BackendFailure, DataShape
from edgefl.graph import Array, Graph, Node, TensorType, run
from edgefl.graph.inference import infer, zeros
from edgefl.graph.interpreter import execute

_TOLERANCE = 1e-3


def single(graph: Graph) -> Graph:
    """The graph for a batch of one; the graph itself where its batch is more than a leading axis.

    Every input and output has the batch first. Shapes the graph states as constants are divided, then both
    graphs are run on random data, and the new one is kept only if it gives the old one's first row.
    """
    batch = next(iter(graph.inputs.values())).shape[0]
    inputs = {name: TensorType(t.dtype, (1, *t.shape[1:])) for name, t in graph.inputs.items()}
    if batch == 1:
        return graph
    for find in (_leading, _equal):
        try:
            small = _replay(graph, inputs, graph.constants, batch, find)
            if _same_first_row(graph, small):
                return small
        except (BackendFailure, ValueError):
            continue
    return graph


def _leading(shape: Array, batch: int) -> int | None:
    """The leading axis, where the batch divides it."""
    return 0 if shape[0] % batch == 0 else _equal(shape, batch)


def _equal(shape: Array, batch: int) -> int | None:
    """The first axis as long as the batch: layout changes may have moved it behind others."""
    found = np.flatnonzero(shape == batch)
    return int(found[0]) if len(found) else None


def _replay(
    graph: Graph,
    inputs: Mapping[str, TensorType],
    constants: Mapping[str, Array],
    batch: int,
    find: Callable[[Array, int], int | None],
) -> Graph:
    """The nodes again with other input types, their stated shapes divided by `batch`, constants folded."""
    known = dict(constants)
    samples = {**known, **{name: zeros(type) for name, type in inputs.items()}}
    nodes: list[Node] = []
    for node in graph:
        if all(not name or name in known for name in node.inputs):
            with np.errstate(all="ignore"):
                known.update(zip(node.outputs, execute(node, known), strict=False))
            samples.update({name: known[name] for name in node.outputs if name})
            continue
        node = _rebatched(node, graph, known, samples, batch, find)
        samples.update(zip(node.outputs, map(zeros, infer(node, samples)), strict=False))
        nodes.append(node)
    outputs = [Node("Identity", (name,), (name,)) for name in graph.outputs if name in known]
    if outputs:
        raise DataShape(f"outputs {[node.outputs[0] for node in outputs]} do not depend on any input")
    used = {name for node in nodes for name in node.inputs}
    return Graph(
        inputs=dict(inputs),
        outputs={name: TensorType.of(samples[name]) for name in graph.outputs},
        nodes=tuple(nodes),
        constants={name: value for name, value in known.items() if name in used},
        types={name: TensorType.of(value) for name, value in samples.items() if name},
        name=graph.name,
    )


def _rebatched(
    node: Node,
    graph: Graph,
    known: dict[str, Array],
    samples: dict[str, Array],
    batch: int,
    find: Callable[[Array, int], int | None],
) -> Node:
    """The node with the batch's axis of the shape it states divided by the batch, if it states one."""
    if node.op not in ("Reshape", "Expand") or node.inputs[1] not in known:
        return node
    target = np.array(graph.type_of(node.outputs[0]).shape, np.int64)
    axis = find(target, batch) if target.size else None
    if axis is None:
        return node
    target[axis] //= batch
    name = f"{node.inputs[1]}/{node.outputs[0]}/single"
    known[name] = samples[name] = target
    return Node(node.op, (node.inputs[0], name), node.outputs, node.attributes, node.name)


def _same_first_row(graph: Graph, small: Graph) -> bool:
    random = np.random.default_rng(0)
    feeds = {name: _random(type, random) for name, type in graph.inputs.items()}
    whole = run(graph, feeds)
    one = run(small, {name: value[:1] for name, value in feeds.items()})
    return all(
        one[name].shape == value[:1].shape and np.allclose(one[name], value[:1], _TOLERANCE, _TOLERANCE)
        for name, value in whole.items()
    )


def _random(type: TensorType, random: np.random.Generator) -> Array:
    if type.dtype.kind == "f":
        return random.normal(size=type.shape).astype(type.dtype)
    return random.integers(0, 2, type.shape).astype(type.dtype)
