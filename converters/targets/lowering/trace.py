# SPDX-License-Identifier: Apache-2.0
"""Tracing a graph into TensorFlow's operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.interleave import stacked
from edgefl.converters.targets.lowering.masks import arithmetic
from edgefl.converters.targets.lowering.picks import placed
from edgefl.converters.targets.lowering.registry import LOWERINGS, Call
from edgefl.converters.targets.lowering.value import Lazy, logical
from edgefl.errors import UnsupportedOperator
from edgefl.graph import Array, Graph, Node

_DTYPES = frozenset({"float32", "int32", "int64", "bool", "int8", "uint8"})


@dataclass(frozen=True)
class Drawn:
    """A graph in TensorFlow's operators.

    Attributes:
        graph: the `tf.Graph`.
        inputs, outputs: its tensors, in the graph's order.
        nodes: for each node how many of TensorFlow's operators there were once it was written.
    """

    graph: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    nodes: tuple[tuple[int, Node], ...]

    def node(self, operator: str) -> Node | None:
        """The node that an operator of this name was written for."""
        order = {made.name: place for place, made in enumerate(self.graph.get_operations())}
        place = order.get(operator, len(order))
        return next((node for count, node in self.nodes if place < count), None)


def draw(graph: Graph, names: Mapping[str, str]) -> Drawn:
    """The graph in TensorFlow's operators, its inputs named by `names`.

    Raises:
        UnsupportedOperator: a node has no lowering or uses what TFLite lacks.
    """
    _check(graph)
    graph = arithmetic(stacked(placed(graph)))
    drawn, nodes = tf.Graph(), list[tuple[int, Node]]()
    with drawn.as_default():
        inputs = [tf.compat.v1.placeholder(t.dtype, t.shape, names[n]) for n, t in graph.inputs.items()]
        outputs = _body(graph, inputs, lambda node: nodes.append((drawn.version, node)))
    return Drawn(drawn, tuple(inputs), tuple(outputs), tuple(nodes))


def trace(graph: Graph, names: Mapping[str, str]) -> Any:
    """A concrete function of the graph's inputs, named by `names`, returning its outputs in order.

    The function is there to be rounded to int8, where clipped masks have no place: no eight bits hold their
    huge factor.

    Raises:
        UnsupportedOperator: a node has no lowering or uses what TFLite lacks.
    """
    _check(graph)
    graph = stacked(placed(graph))
    signature = [tf.TensorSpec(t.shape, t.dtype, names[name]) for name, t in graph.inputs.items()]

    def body(*tensors: Any) -> list[Any]:
        return _body(graph, tensors, lambda node: None)

    return tf.function(body, input_signature=signature, autograph=False).get_concrete_function()


def _body(graph: Graph, tensors: Sequence[Any], written: Callable[[Node], None]) -> list[Any]:
    values: dict[str, Lazy] = {name: _constant(value) for name, value in graph.constants.items()}
    values.update(zip(graph.inputs, map(_held, tensors), strict=True))
    for node in graph:
        values.update(zip(node.outputs, _lower(graph, node, values), strict=False))
        written(node)
    return [_result(values[name], type.dtype) for name, type in graph.outputs.items()]


def _check(graph: Graph) -> None:
    for node in graph:
        if node.op not in LOWERINGS:
            raise UnsupportedOperator(f"node {node}: this operator has no counterpart in TFLite")
        for tensor in filter(None, node.outputs):
            if str(graph.type_of(tensor).dtype) not in _DTYPES:
                made = f"node {node} makes {graph.type_of(tensor)}"
                raise UnsupportedOperator(f"{made}; graphs for TFLite hold {sorted(_DTYPES)}")


def _lower(graph: Graph, node: Node, values: Mapping[str, Lazy]) -> tuple[Lazy, ...]:
    args = tuple(values[name] if name else None for name in node.inputs)
    types = tuple(graph.type_of(name) for name in node.outputs if name)
    made = LOWERINGS[node.op](Call(node, args, types))
    results = made if isinstance(made, tuple) else (made,)
    for result, type in zip(results, types, strict=False):
        assert result.shape == type.shape, f"{node}: lowered to {result.shape}, expected {type.shape}"
    return results


def _constant(value: Array) -> Lazy:
    if value.dtype == np.int64:
        limits = np.iinfo(np.int32)
        value = np.asarray(np.clip(value, limits.min, limits.max), np.int32)
    return Lazy.plain(value)


def _held(tensor: Any) -> Lazy:
    return Lazy.plain(tf.cast(tensor, tf.int32) if tensor.dtype == tf.int64 else tensor)


def _result(value: Lazy, dtype: np.dtype[Any]) -> Any:
    return tf.identity(tf.cast(logical(value), dtype))
