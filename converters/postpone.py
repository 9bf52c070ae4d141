# SPDX-License-Identifier: Apache-2.0
"""Element-wise work that waits until there is less of it.

A bias or an activation that never decreases gives the same values after a maximum pool as before it, to the
elements that the pool keeps, and the same gradients. Biases of two summands are added up before images are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgefl.graph.model import Graph, Node, TensorType

_INCREASING = ("Relu", "Clip", "Sigmoid", "Tanh")


def postpone(graph: Graph, kept: Collection[str]) -> Graph:
    """The same function.

    Args:
        graph: a forward graph in normalised operators.
        kept: tensors that are given or read from outside; what makes them stays in front of them.
    """
    while True:
        reading = _Reading(graph, kept)
        found = next((move for node in graph if (move := reading.move(node))), None)
        if found is None:
            return graph
        graph = found.made(graph)


@dataclass(frozen=True)
class _Move:
    """The nodes that take the place of one and its maker, and the types of the tensors between them."""

    old: Node
    maker: Node
    new: tuple[Node, ...]
    types: Mapping[str, TensorType]

    def made(self, graph: Graph) -> Graph:
        at = graph.nodes.index(self.old)
        before = [node for node in graph.nodes[:at] if node is not self.maker]
        nodes = (*before, *self.new, *graph.nodes[at + 1 :])
        return replace(graph, nodes=nodes, types={**graph.types, **self.types})


class _Reading:
    """A graph with who makes and who reads its tensors."""

    def __init__(self, graph: Graph, kept: Collection[str]) -> None:
        self._graph, self._kept = graph, kept
        self._producers, self._readers = graph.producers(), graph.consumers()

    def move(self, node: Node) -> _Move | None:
        if node.op == "MaxPool" and len(node.outputs) == 1:
            return self._after_pool(node)
        if node.op == "Add":
            return self._after_sum(node, *node.inputs) or self._after_sum(node, *node.inputs[::-1])
        return None

    def _after_pool(self, node: Node) -> _Move | None:
        maker = self._maker(node.inputs[0])
        parts = self._bias(maker)
        if maker is None or not (parts or maker.op in _INCREASING):
            return None
        image, *rest = parts or maker.inputs
        (out,) = node.outputs
        inner = f"{out}/pooled"
        pool = replace(node, inputs=(image,), outputs=(inner,))
        after = replace(maker, inputs=(inner, *rest), outputs=node.outputs)
        return _Move(node, maker, (pool, after), {inner: self._graph.type_of(out)})

    def _after_sum(self, node: Node, left: str, right: str) -> _Move | None:
        """`(image + bias) + other` as `(image + other) + bias`, or as `image + (bias + other)` for a bias."""
        maker = self._maker(left)
        parts = self._bias(maker)
        if maker is None or parts is None:
            return None
        image, bias = parts
        type, given = self._graph.type_of(left), self._graph.type_of(right)
        inner = f"{node.outputs[0]}/sum"
        if given == type:
            total, after = (image, right), (inner, bias)
        elif _per_channel(given.shape):
            shapes = given.shape, self._graph.type_of(bias).shape
            type = TensorType(type.dtype, np.broadcast_shapes(*shapes))
            total, after = (bias, right), (image, inner)
        else:
            return None
        add = Node("Add", total, (inner,), {}, f"{node.name}/sum")
        return _Move(node, maker, (add, replace(node, inputs=after)), {inner: type})

    def _maker(self, tensor: str) -> Node | None:
        """What makes a tensor that nothing else reads."""
        alone = len(self._readers.get(tensor, [])) == 1 and tensor not in self._kept
        return self._producers.get(tensor) if alone else None

    def _bias(self, maker: Node | None) -> tuple[str, str] | None:
        """The image and the bias of its channels that a node adds."""
        if maker is None or maker.op != "Add":
            return None
        shape = self._graph.type_of(maker.outputs[0]).shape
        if len(shape) != 4 or _per_channel(shape):
            return None
        for image, bias in (maker.inputs, maker.inputs[::-1]):
            given = self._graph.type_of(bias).shape
            if self._graph.type_of(image).shape == shape and _per_channel(given):
                return image, bias
        return None


def _per_channel(shape: tuple[int, ...]) -> bool:
    aligned = (1, 1, 1, 1, *shape)[-4:]
    return len(shape) <= 4 and aligned[0] == 1 and aligned[2:] == (1, 1)
