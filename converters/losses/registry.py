# SPDX-License-Identifier: Apache-2.0
"""Losses by name, as graphs: `(output, y) -> one loss per example`.

A name may carry parameters, as in `huber:delta=0.5`. The step takes the weighted mean over examples.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from edgefl.converters.autodiff.expression import Expr
from edgefl.errors import ConversionError
from edgefl.graph.model import TensorType
from edgefl.rules import Rule, above, integer, number, one_of

PerExample = Callable[..., Expr]
"""`(output, y, **parameters) -> loss`, float32 `[B]`; one that looks at other examples takes `weight` too."""

_GIVEN = ("output", "y", "weight")


@dataclass(frozen=True)
class Loss:
    """A loss.

    Attributes:
        name: what the manifest calls it.
        label: the type of `y` for an output's type.
        per_example: emits the loss.
        activation: an operator which, where the model ends in it, is taken off: the loss contains it.
    """

    name: str
    label: Callable[[TensorType], TensorType]
    per_example: PerExample
    activation: str = ""

    def emit(self, output: Expr, y: Expr, weight: Expr) -> Expr:
        """The loss of each example, `[B]`; raises ConversionError where it has another shape."""
        losses = self.per_example(output, y, weight) if self.takes_weight else self.per_example(output, y)
        if losses.shape != weight.shape:
            raise ConversionError(
                f"loss {self.name!r} of an output of shape {output.shape} gives shape {losses.shape}, "
                f"expected one value per example, {weight.shape}"
            )
        return losses

    @property
    def takes_weight(self) -> bool:
        """Whether an example's loss depends on the others in its batch, or on which of them count."""
        return "weight" in inspect.signature(self.per_example).parameters


LOSSES: dict[str, Loss] = {}


def loss(
    label: Callable[[TensorType], TensorType], activation: str = ""
) -> Callable[[PerExample], PerExample]:
    """Register a loss under its function's name."""

    def register(function: PerExample) -> PerExample:
        LOSSES[function.__name__] = Loss(function.__name__, label, function, activation)
        return function

    return register


def find_loss(spec: str) -> Loss:
    """The loss of `name` or `name:parameter=number[:...]`.

    Raises:
        ConversionError: there is no such loss, or it has no such parameter.
    """
    name, *settings = spec.split(":")
    if name not in LOSSES:
        raise ConversionError(f"unknown loss {name!r}: losses are {', '.join(LOSSES)}")
    found = LOSSES[name]
    parameters = dict(_setting(found, text) for text in settings)
    return replace(found, name=spec, per_example=partial(found.per_example, **parameters))


def _setting(found: Loss, text: str) -> tuple[str, object]:
    key, _, value = text.partition("=")
    allowed = [p for p in inspect.signature(found.per_example).parameters if p not in _GIVEN]
    if key not in allowed:
        raise ConversionError(f"loss {found.name!r} has no parameter {key!r}: it has {allowed or 'none'}")
    read, rule = _READERS.get(key, (float, number(-sys.float_info.max, sys.float_info.max)))
    try:
        return key, rule(read(value), key)
    except ValueError as exc:
        raise ConversionError(
            f"loss {found.name!r}: {key} has to be {rule.allowed}, given {value!r}"
        ) from exc


REDUCTIONS = ("example", "token")
"""What a loss of several positions is the mean of: each example's own mean, or all positions of the batch."""

_READERS: dict[str, tuple[Callable[[str], object], Rule]] = {
    "ignore_index": (int, integer(-999_999_999, 999_999_999)),
    "reduction": (str, one_of(*REDUCTIONS)),
    "delta": (float, above(0.0)),
    "smoothing": (float, number(0.0, 0.9999)),
    "temperature": (float, above(0.0)),
}
"""How a parameter is read from text, and what it may be; others are numbers."""


def weighted_mean(losses: Expr, weight: Expr) -> Expr:
    """`sum(w l) / sum(w)` of losses and weights `[B]`, a scalar."""
    return (losses * (weight / weight.sum())).sum()
