# SPDX-License-Identifier: Apache-2.0
"""Where vector-Jacobian functions register, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.graph.model import Array, Attribute, Node

Gradient = Expr | Callable[[], Expr] | None
"""The gradient of one input: a tensor, a function that emits it when it is wanted, or None for inputs
that have none: integers, and operands that have to be constants."""

Pullback = Callable[..., tuple[Gradient, ...]]
"""`(op, *dy) -> one gradient per input`; `dy` is the gradient of each output (zeros where unused)."""

VJPS: dict[str, Pullback] = {}

FLAT = frozenset({"Sign", "Floor", "Ceil", "Round"})
"""Operators whose gradient is zero wherever they have one, so that no path leads through them."""

_F = TypeVar("_F", bound=Pullback)


class NoGradient(Exception):
    """Raised inside a vector-Jacobian function that does not cover this use of its operator."""


@dataclass(frozen=True)
class Op:
    """A forward node seen from its gradient."""

    builder: GraphBuilder
    node: Node

    @property
    def x(self) -> Expr:
        """The first input."""
        return self.input(0)

    @property
    def y(self) -> Expr:
        """The first output."""
        return self.output(0)

    def output(self, index: int) -> Expr:
        return Expr(self.builder, self.node.outputs[index])

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def input(self, index: int) -> Expr:
        return Expr(self.builder, self.node.inputs[index])

    @property
    def inputs(self) -> list[Expr]:
        """All inputs of an operator that has no optional ones."""
        return [self.input(i) for i in range(len(self.node.inputs))]

    def known(self, index: int) -> Array:
        """The value of an input that has to be known now; raises NoGradient where it is not."""
        value = self.input(index).value
        if value is None:
            raise NoGradient(f"its input {self.node.inputs[index]!r} is not a constant")
        return value

    def integer(self, name: str, default: int) -> int:
        return int(self._number(name, default))

    def real(self, name: str, default: float) -> float:
        return float(self._number(name, default))

    def text(self, name: str, default: str) -> str:
        return str(self.node.attributes.get(name, default))

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = self.node.attributes.get(name, default)
        return tuple(int(v) for v in np.asarray(value).reshape(-1))

    def _number(self, name: str, default: float) -> float:
        value: Attribute = self.node.attributes.get(name, default)
        return float(np.asarray(value).reshape(()))


def vjp(*operators: str) -> Callable[[_F], _F]:
    """Register a function as the gradient of the named operators."""

    def register(function: _F) -> _F:
        for operator in operators:
            VJPS[operator] = function
        return function

    return register


def elementwise(*operators: str) -> Callable[[_F], _F]:
    """Like `vjp`, for operators that broadcast: gradients are summed back to each input's shape."""

    def register(function: _F) -> _F:
        def summed(op: Op, *dy: Expr) -> tuple[Gradient, ...]:
            return tuple(_summed(op, i, g) for i, g in enumerate(function(op, *dy)))

        for operator in operators:
            VJPS[operator] = summed
        return function

    return register


def _summed(op: Op, index: int, gradient: Gradient) -> Gradient:
    if gradient is None:
        return None
    return lambda: emit(gradient).sum_to(op.input(index).shape)


def emit(gradient: Expr | Callable[[], Expr]) -> Expr:
    """The tensor of a gradient that is wanted."""
    return gradient if isinstance(gradient, Expr) else gradient()
