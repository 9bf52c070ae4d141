# SPDX-License-Identifier: Apache-2.0
"""Folding what follows a convolution or matrix product into its weight and one bias.

A frozen BatchNorm is a multiplication and an addition per element after a convolution. Scaling the weight
instead touches far fewer elements, forward and backward, and stays differentiable in weight and scale alike;
where both are frozen, nothing is left of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.graph.model import Graph, Node


def fold(graph: Graph, data: Collection[str]) -> Graph:
    """The same function with scales after products moved into weights, and chains of biases added up.

    Args:
        graph: a forward graph.
        data: its data inputs; only factors and biases that do not depend on them are moved.
    """
    return _Folding(graph, data).graph()


class _Folding:
    def __init__(self, graph: Graph, data: Collection[str]) -> None:
        self._source = graph
        self._data = data
        self._builder = GraphBuilder()
        self._fed: set[str] = set()  # tensors of the builder that depend on data
        self._alone: set[str] = set()  # those among them with one reader

    def graph(self) -> Graph:
        b, source = self._builder, self._source
        tensors = {name: b.input(name, type) for name, type in source.inputs.items()}
        tensors.update({name: b.constant(value) for name, value in source.constants.items()})
        self._fed.update(tensors[name] for name in self._data)
        readers = source.consumers()
        for node in source:
            made = self._emit(node, [tensors[t] if t else "" for t in node.inputs])
            tensors.update(zip(node.outputs, made, strict=True))
            if not self._fed.isdisjoint(tensors[t] for t in node.inputs if t):
                self._fed.update(made)
            self._alone.update(
                m for t, m in zip(node.outputs, made, strict=True) if len(readers.get(t, [])) == 1
            )
        for name in source.outputs:
            b.output(name, tensors[name])
        return b.build(source.name)

    def _emit(self, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
        if node.op in ("Mul", "Add"):
            for x, other in (tuple(inputs), tuple(inputs)[::-1]):
                if x in self._fed & self._alone and other not in self._fed:
                    moved = self._moved(node.op, Expr(self._builder, x), Expr(self._builder, other))
                    if moved is not None:
                        return (moved.name,)
        made = self._builder.add(
            node.op, *inputs, outputs=len(node.outputs), name=node.name, **node.attributes
        )
        return (made,) if isinstance(made, str) else made

    def _moved(self, op: str, x: Expr, other: Expr) -> Expr | None:
        """`x * other` or `x + other` with `other` moved into what makes `x`; None where it cannot be."""
        maker = self._builder.producer(x.name)
        if maker is None or np.broadcast_shapes(x.shape, other.shape) != x.shape:
            return None
        if maker.op == "Add":
            return self._past_bias(op, maker, other)
        return _scaled(self._builder, maker, other) if op == "Mul" else None

    def _past_bias(self, op: str, maker: Node, other: Expr) -> Expr | None:
        inner, bias = (Expr(self._builder, t) for t in maker.inputs)
        if bias.name in self._fed:
            inner, bias = bias, inner
        if bias.name in self._fed:
            return None
        if op == "Add":
            return self._known(inner + (bias + other))
        if inner.name not in self._alone:
            return None
        scaled = self._moved("Mul", inner, other)
        return None if scaled is None else self._known(self._known(scaled) + bias * other)

    def _known(self, made: Expr) -> Expr:
        """A tensor made by folding: it depends on data and is read once."""
        self._fed.add(made.name)
        self._alone.add(made.name)
        return made


def _scaled(b: GraphBuilder, maker: Node, factor: Expr) -> Expr | None:
    """The product with a scaled weight, where that is less work than scaling the result."""
    if maker.op not in ("Conv", "MatMul") or len(maker.inputs) != 2:
        return None
    x, w = (Expr(b, t) for t in maker.inputs)
    out = b.type(maker.outputs[0])
    shape = _weight_shape(maker.op, w, factor, out.shape)
    if shape is None or (w.value is None and w.builder.type(w.name).size > out.size):
        return None
    weight = w * factor.reshape(shape)
    return Expr(b, b.add(maker.op, x.name, weight.name, name=maker.name, **maker.attributes))  # type: ignore[arg-type]


def _weight_shape(op: str, w: Expr, factor: Expr, out: tuple[int, ...]) -> tuple[int, ...] | None:
    """The factor's shape against the weight, when it has one value per output channel or one in all."""
    if op == "MatMul" and w.rank != 2:
        return None
    axis = 1 if op == "Conv" else len(out) - 1
    aligned = (1,) * (len(out) - factor.rank) + factor.shape
    if any(n != 1 for i, n in enumerate(aligned) if i != axis):
        return None
    return (aligned[axis], *(1,) * (w.rank - 1)) if op == "Conv" else (1, aligned[axis])
