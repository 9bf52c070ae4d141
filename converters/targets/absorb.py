# SPDX-License-Identifier: Apache-2.0
"""Scales and shifts taken into the convolution or matrix product before them.

Quantizers round after every operator. A bias or a frozen normalisation left outside costs one rounding each;
inside it costs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgefl.graph import Array, Graph, Node

_AFFINE = ("Add", "Sub", "Mul", "Div")


@dataclass(frozen=True, eq=False)
class _Product:
    """A Conv or a two-dimensional MatMul: weight with output channels along `axis`, bias per channel."""

    node: Node
    weight: Array
    bias: Array
    axis: int

    def scaled(self, factor: Array) -> _Product:
        shape = [-1 if axis == self.axis else 1 for axis in range(self.weight.ndim)]
        weight = (self.weight * factor.reshape(shape)).astype(self.weight.dtype)
        return replace(self, weight=weight, bias=self.bias * factor)


def absorb(graph: Graph) -> Graph:
    """The same function with every constant per-channel scale and shift after a Conv or MatMul inside it.

    Convolutions come out with a bias, matrix products of rank two as Gemm.
    """
    constants = dict(graph.constants)
    consumers = graph.consumers()
    gone: set[str] = set()
    nodes: list[Node] = []
    for node in graph:
        if node.outputs[0] in gone:
            continue
        product = _product(graph, node)
        if product is None:
            nodes.append(node)
            continue
        last = node.outputs[0]
        while (step := _affine(graph, consumers.get(last, []), last, product)) is not None:
            product, last = step
            gone.add(last)
        nodes.append(_emit(product, last, constants))
    used = {name for node in nodes for name in node.inputs}
    kept = {name: value for name, value in constants.items() if name in used}
    return replace(graph, nodes=tuple(nodes), constants=kept)


def _product(graph: Graph, node: Node) -> _Product | None:
    if node.op not in ("Conv", "MatMul") or node.inputs[1] not in graph.constants:
        return None
    weight = graph.constants[node.inputs[1]]
    if node.op == "MatMul" and (weight.ndim != 2 or len(graph.type_of(node.inputs[0]).shape) != 2):
        return None
    axis = 0 if node.op == "Conv" else 1
    bias = np.zeros(weight.shape[axis], weight.dtype)
    if len(node.inputs) > 2 and node.inputs[2]:
        if node.inputs[2] not in graph.constants:
            return None
        bias = graph.constants[node.inputs[2]]
    return _Product(node, weight, bias, axis)


def _affine(graph: Graph, readers: list[Node], last: str, product: _Product) -> tuple[_Product, str] | None:
    """The product with the one node that reads it taken in, and that node's output; None if it cannot be."""
    if len(readers) != 1 or readers[0].op not in _AFFINE or last in graph.outputs:
        return None
    node = readers[0]
    other = node.inputs[1] if node.inputs[0] == last else node.inputs[0]
    vector = _per_channel(graph, other, last, len(product.bias))
    if vector is None or (node.op == "Div" and node.inputs[0] != last):
        return None
    return _taken_in(product, node.op, vector, node.inputs[0] == last), node.outputs[0]


def _taken_in(product: _Product, op: str, vector: Array, product_first: bool) -> _Product:
    if op in ("Mul", "Div"):
        return product.scaled(vector if op == "Mul" else 1 / vector)
    if op == "Sub" and not product_first:
        product = product.scaled(-np.ones_like(vector))
    sign = -1 if op == "Sub" and product_first else 1
    return replace(product, bias=product.bias + sign * vector)


def _per_channel(graph: Graph, name: str, last: str, channels: int) -> Array | None:
    """A constant as one number per channel of the tensor `last`; None if it is not that."""
    if name not in graph.constants:
        return None
    shape = graph.type_of(last).shape
    value = graph.constants[name]
    if value.ndim > len(shape):
        return None
    wide = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
    if any(n != 1 for axis, n in enumerate(wide.shape) if axis != 1):
        return None
    return np.broadcast_to(wide.reshape(-1), (channels,)).copy()


def _emit(product: _Product, last: str, constants: dict[str, Array]) -> Node:
    node = product.node
    weight, bias = f"{node.outputs[0]}/weight", f"{node.outputs[0]}/bias"
    constants[weight] = np.ascontiguousarray(product.weight)
    constants[bias] = product.bias.astype(product.weight.dtype)
    op = "Conv" if node.op == "Conv" else "Gemm"
    attributes: Mapping[str, object] = node.attributes if op == "Conv" else {}
    return Node(op, (node.inputs[0], weight, bias), (last,), dict(attributes), node.name)  # type: ignore[arg-type]
