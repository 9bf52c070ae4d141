# SPDX-License-Identifier: Apache-2.0
"""Graphs for deployment: the batch set to one."""

from __future__ import annotations

import math
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
    for constants in (graph.constants, _one_of_equal_rows(graph.constants, batch)):
        for find in (_Traced(), _leading, _equal):
            try:
                small = _replay(graph, inputs, constants, batch, find)
                if _same_first_row(graph, small):
                    return small
            except (BackendFailure, ValueError):
                continue
    return graph


def _one_of_equal_rows(constants: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """Constants that were spread over the batch, such as position ids, with one row of it."""
    return {
        name: value[:1] if value.ndim > 1 and len(value) == batch and (value == value[:1]).all() else value
        for name, value in constants.items()
    }


Find = Callable[[Node, Graph, Mapping[str, Array], int], "int | None"]
"""The axis of the shape that a node states in which the batch lies, None where there is none."""


class _Traced:
    """By the batch's place in memory: reshaping keeps the order of elements, so its stride stays.

    Where the batch shares an axis, it is the slower part, as in heads of attention, unless a Reshape merged
    it as the faster one.
    """

    def __init__(self) -> None:
        self._units: dict[str, int] = {}

    def __call__(self, node: Node, graph: Graph, samples: Mapping[str, Array], batch: int) -> int | None:
        source, shape = node.inputs[0], graph.type_of(node.outputs[0]).shape
        before = graph.type_of(source).shape
        moved = _moved(source, graph, samples)
        if moved is None:
            return _leading(node, graph, samples, batch)
        if node.op == "Expand":
            return moved + len(shape) - len(before)
        stride = math.prod(before[moved + 1 :]) * self._unit(source, graph, samples, batch)
        for axis in reversed(range(len(shape))):
            inner = math.prod(shape[axis + 1 :])
            if inner <= stride < inner * shape[axis]:
                self._units[node.outputs[0]] = stride // inner
                return axis
        return None

    def _unit(self, tensor: str, graph: Graph, samples: Mapping[str, Array], batch: int) -> int:
        """Elements of its axis per step of the batch, as the last Reshape before left it."""
        axis = _moved(tensor, graph, samples)
        assert axis is not None
        length = graph.type_of(tensor).shape[axis]
        producers = graph.producers()
        while tensor not in self._units and tensor in producers:
            sources = [t for t in producers[tensor].inputs if _length(t, graph, samples) == length]
            if not sources:
                break
            tensor = sources[0]
        return self._units.get(tensor, length // batch)


def _moved(tensor: str, graph: Graph, samples: Mapping[str, Array]) -> int | None:
    """The one axis that is shorter in the replay; None where there is none, or several."""
    pairs = zip(graph.type_of(tensor).shape, samples[tensor].shape, strict=True)
    axes = [axis for axis, (old, new) in enumerate(pairs) if old != new]
    return axes[0] if len(axes) == 1 else None


def _length(tensor: str, graph: Graph, samples: Mapping[str, Array]) -> int:
    axis = _moved(tensor, graph, samples) if tensor in samples else None
    return 0 if axis is None else graph.type_of(tensor).shape[axis]


def _leading(node: Node, graph: Graph, samples: Mapping[str, Array], batch: int) -> int | None:
    """The leading axis, where the batch divides it."""
    shape = graph.type_of(node.outputs[0]).shape
    return 0 if shape and shape[0] % batch == 0 else _equal(node, graph, samples, batch)


def _equal(node: Node, graph: Graph, samples: Mapping[str, Array], batch: int) -> int | None:
    """The first axis as long as the batch: layout changes may have moved it behind others."""
    shape = graph.type_of(node.outputs[0]).shape
    return shape.index(batch) if batch in shape else None


def _replay(
    graph: Graph,
    inputs: Mapping[str, TensorType],
    constants: Mapping[str, Array],
    batch: int,
    find: Find,
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
    find: Find,
) -> Node:
    """The node with the batch's axis of the shape it states divided by the batch, if it states one."""
    if node.op not in ("Reshape", "Expand") or node.inputs[1] not in known:
        return node
    target = np.array(graph.type_of(node.outputs[0]).shape, np.int64)
    axis = find(node, graph, samples, batch)
    if axis is None or target[axis] % batch:
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
