# SPDX-License-Identifier: Apache-2.0
"""What lowering one node sees, and the table of lowerings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.converters.targets.lowering.value import Lazy
from edgefl.errors import UnsupportedOperator
from edgefl.graph import Array, Node, TensorType


@dataclass(frozen=True, eq=False)
class Call:
    """One node with its inputs.

    Attributes:
        node: the node.
        args: its inputs; None for an omitted one.
        types: the types of its outputs.
    """

    node: Node
    args: tuple[Lazy | None, ...]
    types: tuple[TensorType, ...]

    def __getitem__(self, index: int) -> Lazy:
        value = self.args[index] if index < len(self.args) else None
        if value is None:
            raise self.refuse(f"needs input {index}")
        return value

    def __len__(self) -> int:
        return len(self.args)

    def given(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < len(self.args) and self.args[index] is not None

    @property
    def values(self) -> list[Lazy]:
        """All inputs, for operators without optional ones."""
        return [self[index] for index in range(len(self.args))]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return self.types[0].shape

    def constant(self, index: int) -> Array:
        """An input that must be known at conversion."""
        value = self[index]
        if not isinstance(value.data, np.ndarray):
            raise self.refuse(f"needs a constant as input {index}")
        return value.data.transpose(value.order)

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def ints(self, name: str, default: Sequence[int]) -> tuple[int, ...]:
        return tuple(int(n) for n in self.attribute(name, default))

    def refuse(self, why: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"node {self.node} has no TFLite counterpart: {why}")


Lowering = Callable[[Call], Lazy | tuple[Lazy, ...]]

LOWERINGS: dict[str, Lowering] = {}


def lowering(*operators: str) -> Callable[[Lowering], Lowering]:
    """Register a lowering for operators."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(operators, function))
        return function

    return register
