# SPDX-License-Identifier: Apache-2.0
"""Where rewrites register, and what they share to read a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.instead import instead_of
from edgefl.errors import UnsupportedOperator
from edgefl.graph.kernels import KERNELS
from edgefl.graph.model import Array, Graph, Node

Rewrite = Callable[[GraphBuilder, Node, Sequence[str]], "str | tuple[str, ...]"]
"""`(builder, node, inputs) -> outputs`: inputs are tensors of the builder; a missing optional one is ""."""

_R = TypeVar("_R", bound=Rewrite)


def registrar(table: dict[str, Rewrite]) -> Callable[..., Callable[[_R], _R]]:
    """A decorator that registers a function under operator names in `table`."""

    def rewrite(*operators: str) -> Callable[[_R], _R]:
        def register(function: _R) -> _R:
            table.update(dict.fromkeys(operators, function))
            return function

        return register

    return rewrite


REWRITES: dict[str, Rewrite] = {}
rewrite = registrar(REWRITES)


def replay(graph: Graph, rewrites: Mapping[str, Rewrite], more: Mapping[str, str] | None = None) -> Graph:
    """The graph with every node added anew, through its operator's rewrite where there is one.

    Args:
        more: further outputs to the builder's tensors; rewrites may fill it while they run.
    """
    _check_covered(graph, rewrites)
    b = GraphBuilder()
    tensors = {name: b.input(name, type) for name, type in graph.inputs.items()}
    tensors.update({name: b.constant(value) for name, value in graph.constants.items()})
    for node in graph:
        b.scope = node.name
        inputs = tuple(tensors[t] if t else "" for t in node.inputs)
        made = rewrites.get(node.op, keep)(b, node, inputs)
        tensors.update(zip(node.outputs, (made,) if isinstance(made, str) else made, strict=False))
    for name in graph.outputs:
        b.output(name, tensors[name])
    for name, tensor in (more or {}).items():
        b.output(name, tensor)
    return b.build(graph.name)


def _check_covered(graph: Graph, rewrites: Mapping[str, Rewrite]) -> None:
    missing = {node.op: node for node in graph if node.op not in rewrites and node.op not in KERNELS}
    if missing:
        each = (f"node {node}: {instead_of(op)}" for op, node in sorted(missing.items()))
        raise UnsupportedOperator(f"edgefl does not cover {'; '.join(each)}")


def keep(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    """The node as it is."""
    return b.add(node.op, *inputs, outputs=len(node.outputs), **node.attributes)  # type: ignore[arg-type]


def given(inputs: Sequence[str], index: int) -> str:
    """An optional input, or "" when it is absent."""
    return inputs[index] if index < len(inputs) else ""


def static(b: GraphBuilder, node: Node, inputs: Sequence[str], index: int) -> Array | None:
    """The value of an input that decides shapes, None when it is absent.

    Raises:
        UnsupportedOperator: the value depends on the data, so the output's shape would too.
    """
    if not given(inputs, index):
        return None
    value = b.value(inputs[index])
    if value is None:
        raise UnsupportedOperator(
            f"node {node}: input {index} depends on the data or on a parameter, "
            "edgefl needs it constant so that shapes are static; "
            "choose by position, or multiply by a mask"
        )
    return value


def static_ints(b: GraphBuilder, node: Node, inputs: Sequence[str], index: int) -> tuple[int, ...] | None:
    """`static`, as integers."""
    value = static(b, node, inputs, index)
    return None if value is None else tuple(int(v) for v in np.ravel(value))


def number(node: Node, name: str, default: float) -> float:
    """A float attribute."""
    value = node.attributes.get(name, default)
    assert isinstance(value, (int, float))
    return float(value)


def integer(node: Node, name: str, default: int) -> int:
    """An integer attribute."""
    value = node.attributes.get(name, default)
    assert isinstance(value, int)
    return value


def integers(node: Node, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    """An attribute that is a list of integers."""
    value = node.attributes.get(name, tuple(default))
    assert isinstance(value, tuple)
    return tuple(int(v) for v in value)


def text(node: Node, name: str, default: str = "") -> str:
    """A string attribute."""
    value = node.attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def like(b: GraphBuilder, tensor: str, value: float) -> str:
    """A scalar constant of the tensor's element type."""
    return b.constant(np.asarray(value, b.type(tensor).dtype))


def axes_constant(b: GraphBuilder, axes: Sequence[int]) -> str:
    """A constant int64 vector, as axes, shapes and pads are given."""
    return b.constant(np.asarray(axes, np.int64).reshape(len(axes)))
