# SPDX-License-Identifier: Apache-2.0
"""Where the frozen part of a model ends: its outputs are computed once per example and cached."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.converters.graft import required
from edgefl.graph.interpreter import Interpreter
from edgefl.graph.model import Array, Graph, Node, TensorType

_HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul"})
_SHARE = 0.2  # of the forward work; a smaller prefix is not worth keeping its outputs


@dataclass(frozen=True)
class Cut:
    """Where a graph is cut.

    Attributes:
        tensors: what crosses from the frozen prefix to the trained rest, data inputs that the rest reads
            included. Each holds one row per example.
        heavy: convolutions and matrix products in the prefix.
        nbytes: of the tensors, for one example.
    """

    tensors: tuple[str, ...]
    heavy: int
    nbytes: int


def find_cut(
    graph: Graph, targets: Collection[str], trainable: Collection[str], data: Sequence[str]
) -> Cut | None:
    """The cut between what no trainable parameter influences and the rest; None where it is not worth one.

    Behind the last convolution or matrix product of the prefix, cheap nodes stay on the side that makes
    the cached tensors smallest.

    Args:
        graph: a forward graph whose frozen parameters are constants.
        targets: the tensors the loss is computed from.
        trainable: names of the inputs that are trained.
        data: names of the data inputs; their first axis is the batch.
    """
    nodes = required(graph, targets)
    trained = _downstream(nodes, trainable)
    frozen = [node for node in nodes if trained.isdisjoint(node.outputs)]
    fed = _downstream(frozen, data)
    heavy = [node for node in frozen if node.op in _HEAVY and not fed.isdisjoint(node.outputs)]
    if trained.isdisjoint(targets) or not _work(graph, heavy) > _SHARE * _work(graph, nodes):
        return None
    makers = {t: node for node in frozen for t in node.outputs}
    chains = [_chain(tensor, makers, fed) for tensor in _crossing(nodes, targets, trained, fed)]
    rows = _rows_of_examples(graph, dict.fromkeys(t for chain in chains for t in chain), data)
    if any(rows.isdisjoint(chain) for chain in chains):
        return None
    tensors = tuple(dict.fromkeys(_smallest(graph, rows, chain) for chain in chains))
    batch = graph.type_of(data[0]).shape[0]
    return Cut(tensors, len(heavy), sum(graph.type_of(t).nbytes for t in tensors) // batch)


def _work(graph: Graph, nodes: Sequence[Node]) -> int:
    """Multiplications in convolutions and matrix products."""
    return sum(_multiplications(graph, node) for node in nodes if node.op in _HEAVY)


def _multiplications(graph: Graph, node: Node) -> int:
    x, weight = (graph.type_of(t) for t in node.inputs[:2])
    out = graph.type_of(node.outputs[0])
    if node.op == "MatMul":
        return out.size * x.shape[-1]
    if node.op == "Conv":
        return out.size * weight.size // weight.shape[0]
    return (x.size if node.op == "ConvTranspose" else out.size) * weight.size // weight.shape[0]


def _downstream(nodes: Sequence[Node], sources: Collection[str]) -> set[str]:
    """The sources and all that depends on them."""
    reached = set(sources)
    for node in nodes:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return reached


def _crossing(nodes: Sequence[Node], targets: Collection[str], trained: set[str], fed: set[str]) -> list[str]:
    """The tensors made of data alone that the loss or nodes depending on trainable parameters read."""
    readers = [node for node in nodes if not trained.isdisjoint(node.outputs)]
    read = [t for node in readers for t in node.inputs]
    return list(dict.fromkeys(t for t in (*read, *targets) if t in fed))


def _chain(tensor: str, makers: Mapping[str, Node], fed: set[str]) -> list[str]:
    """A tensor and what it is computed from, back through cheap nodes while each reads one tensor only."""
    chain = [tensor]
    while chain[-1] in makers and makers[chain[-1]].op not in _HEAVY:
        sources = [t for t in makers[chain[-1]].inputs if t in fed]
        if len(set(sources)) != 1:
            break
        chain.append(sources[0])
    return chain


def _smallest(graph: Graph, rows: set[str], chain: Sequence[str]) -> str:
    return min((t for t in chain if t in rows), key=lambda t: graph.type_of(t).nbytes)


def _rows_of_examples(graph: Graph, tensors: Collection[str], data: Sequence[str]) -> set[str]:
    """The tensors whose row i depends on example i only, tried on random examples.

    The same examples are put in two batches at different places, among different others.
    """
    types = {name: graph.type_of(name) for name in data}
    batch = types[data[0]].shape[0]
    leading = [t for t in tensors if graph.type_of(t).shape[:1] == (batch,)]
    if batch == 1:
        return set(leading)
    random = np.random.default_rng(0)
    pools = {n: _random(random, TensorType(t.dtype, (2 * batch, *t.shape[1:]))) for n, t in types.items()}
    prefix = _prefix(graph, leading, types)
    first = prefix({name: pool[:batch] for name, pool in pools.items()})
    turned = np.arange(batch, 0, -1)
    second = prefix({name: pool[turned] for name, pool in pools.items()})
    return {t for t in leading if _close(first[t][1:], second[t][::-1][:-1])}


def _prefix(graph: Graph, tensors: Sequence[str], inputs: Mapping[str, TensorType]) -> Interpreter:
    nodes = required(graph, tensors)
    outputs = {t: graph.type_of(t) for t in tensors}
    return Interpreter(Graph(inputs, outputs, tuple(nodes), graph.constants, graph.types, "prefix"))


def _random(random: np.random.Generator, type: TensorType) -> Array:
    """Small numbers that any input of the type can take."""
    if type.dtype.kind == "f":
        return random.standard_normal(type.shape).astype(type.dtype)
    return random.integers(0, 2, type.shape).astype(type.dtype)


def _close(a: Array, b: Array) -> bool:
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-4 * (float(np.abs(a).max(initial=0)) or 1)))
