# SPDX-License-Identifier: Apache-2.0
"""Comparisons with a number, made into zeros and ones for a product, by arithmetic alone.

XNNPACK knows no bool: a comparison, a conjunction and a cast run on TFLite's own kernels, which are slow and
split what XNNPACK computes into parts. `x > c` is `(x - c) * huge` clipped to [0, 1]: a difference of two
floats has the right sign, and the smallest normal number times `huge` is above one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgefl.graph import Array, Graph, Node, TensorType

_HUGE = np.float32(2.0**127)
_FLOAT = np.dtype(np.float32)


def arithmetic(graph: Graph) -> Graph:
    """The same function with every float32 cast of a comparison with a finite number as a clipped product."""
    work = _Work(graph, graph.producers(), dict(graph.constants), dict(graph.types), [])
    for node in graph:
        distance = work.distance(node.inputs[0]) if _is_cast(graph, node) else None
        if distance is None:
            work.nodes.append(node)
        else:
            work.clip(distance, node)
    return replace(graph, nodes=tuple(work.nodes), constants=work.constants, types=work.types)


def _is_cast(graph: Graph, node: Node) -> bool:
    return node.op == "Cast" and graph.type_of(node.outputs[0]).dtype == _FLOAT


@dataclass(frozen=True)
class _Work:
    graph: Graph
    producers: Mapping[str, Node]
    constants: dict[str, Array]
    types: dict[str, TensorType]
    nodes: list[Node]

    def distance(self, condition: str) -> str | None:
        """A tensor that is above zero exactly where the condition holds; None where that is not known."""
        node = self.producers.get(condition)
        if node is None:
            return None
        if node.op in ("Greater", "Less"):
            return self._difference(node)
        if node.op != "And":
            return None
        both = [self.distance(name) for name in node.inputs]
        shapes = {self._shape(name) for name in both if name is not None}
        return self._add("Min", *filter(None, both)) if None not in both and len(shapes) == 1 else None

    def clip(self, distance: str, node: Node) -> None:
        """The cast's output, from a distance."""
        scaled = self._add("Mul", distance, self._constant(_HUGE))
        bounds = [self._constant(np.float32(n)) for n in (0, 1)]
        self.nodes.append(Node("Clip", (scaled, *bounds), node.outputs, {}, node.name))

    def _difference(self, node: Node) -> str | None:
        x, bound = node.inputs
        number = self.constants.get(bound)
        if number is None or number.size != 1 or number.dtype != _FLOAT or not np.isfinite(number).all():
            return None
        if node.op == "Less":
            return self._add("Sub", bound, x)
        return self._add("Sub", x, bound) if number or number.ndim > len(self._shape(x)) else x

    def _add(self, op: str, *inputs: str) -> str:
        """A node of float32 tensors of one shape, or with one number."""
        name = f"mask/{op}/{'/'.join(inputs)}"
        if name not in self.types:
            self.types[name] = TensorType(_FLOAT, np.broadcast_shapes(*map(self._shape, inputs)))
            self.nodes.append(Node(op, inputs, (name,)))
        return name

    def _shape(self, name: str) -> tuple[int, ...]:
        return self.constants[name].shape if name in self.constants else self._type(name).shape

    def _type(self, name: str) -> TensorType:
        return self.types[name] if name in self.types else self.graph.type_of(name)

    def _constant(self, value: np.float32) -> str:
        name = f"mask/{float(value)!r}"
        self.constants[name] = np.asarray(value)
        return name
