# SPDX-License-Identifier: Apache-2.0
"""What lowering one node sees, and the table of lowerings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgefl.converters.targets.coreml.lowering.value import Value
from edgefl.errors import UnsupportedOperator
from edgefl.graph import Array, Node, TensorType


@dataclass(frozen=True, eq=False)
class Call:
    """One node with its inputs.

    Attributes:
        node: the node.
        args: its inputs; None for an omitted one.
        types: the types of its outputs.
        makers: tensor name to the node that makes it, over the whole graph.
        values: every tensor made so far.
    """

    node: Node
    args: tuple[Value | None, ...]
    types: tuple[TensorType, ...]
    makers: Mapping[str, Node] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)

    def __getitem__(self, index: int) -> Value:
        value = self.args[index] if index < len(self.args) else None
        if value is None:
            raise self.refuse(f"it needs input {index}")
        return value

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.args) and self.args[index] is not None

    @property
    def all(self) -> list[Value]:
        """All inputs, for operators without optional ones."""
        return [self[index] for index in range(len(self.args))]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.types[0].shape

    def constant(self, index: int) -> Array:
        """An input that must be known at conversion."""
        value = self[index]
        if not value.is_constant:
            raise self.refuse(f"it needs a constant as input {index}")
        array: Array = value.data.reshape(value.shape)
        return array

    def maker(self, index: int) -> Node | None:
        """The node that makes an input."""
        return self.makers.get(self.node.inputs[index])

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def ints(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        return tuple(int(n) for n in self.attribute(name, default))

    def refuse(self, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"node {self.node} has no Core ML counterpart: {why}")


Lowering = Callable[[Call], Value | tuple[Value, ...]]

LOWERINGS: dict[str, Lowering] = {}


def lowering(*operators: str) -> Callable[[Lowering], Lowering]:
    """Register a lowering for operators."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(operators, function))
        return function

    return register
