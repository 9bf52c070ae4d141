# SPDX-License-Identifier: Apache-2.0
"""Which losses of which outputs a model is trained for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.bundle import TensorSpec
from edgefl.converters.losses.registry import Loss, find_loss
from edgefl.converters.losses.traced import traced_loss
from edgefl.converters.sources.forward import Forward
from edgefl.converters.sources.functions import loss_name
from edgefl.errors import ConversionError
from edgefl.graph.model import TensorType

OneLoss = str | Callable[..., Any]
"""A name, or a callable of the model's framework."""

LossSpec = OneLoss | Mapping[str, OneLoss | tuple[OneLoss, float]]
"""One loss, for the model's first output, or a loss for each of some outputs, alone or with its share."""


@dataclass(frozen=True)
class Term:
    """A part of what is minimised: `share` times the loss of one output.

    Attributes:
        output: the model's name for it.
        loss: what it is compared by.
        share: its factor in the sum, 0 or more.
        y: the step's name for the labels: `y`, or `y/<output>` where there are several.
        gives: the name of the output in `infer`: `output`, or `output/<output>` where there are several.
    """

    output: str
    loss: Loss
    share: float = 1.0
    y: str = "y"
    gives: str = "output"

    @property
    def text(self) -> str:
        """The loss's name, with its share where that is not 1."""
        return self.loss.name if self.share == 1 else f"{self.share:g}*{self.loss.name}"


def make_objective(spec: LossSpec, forward: Forward, labels: Any = None) -> tuple[Term, ...]:
    """The terms of a loss.

    Args:
        spec: a loss, or losses by output.
        forward: the model.
        labels: what `y` is, needed for callables: example labels `[examples, ...]` or a `TensorSpec`, by
            output where there are several.

    Raises:
        ConversionError: no such loss or output, labels of a callable that are not given, or a callable that
            does not give one value per example.
    """
    if not isinstance(spec, Mapping):
        output = forward.outputs[0]
        return (Term(output, _loss(spec, forward, output, labels)),)
    unknown = [name for name in spec if name not in forward.outputs]
    if unknown or not spec:
        raise ConversionError(
            f"losses for outputs {unknown or 'none'}: the model has {list(forward.outputs)}"
        )
    given = labels if isinstance(labels, Mapping) else {}
    terms = []
    for name, value in spec.items():
        loss, share = value if isinstance(value, tuple) else (value, 1.0)
        if not (np.isfinite(share) and share >= 0):
            raise ConversionError(f"the loss of output {name!r} has the share {share}, allowed 0 or more")
        several = len(spec) > 1
        y, gives = (f"y/{name}", f"output/{name}") if several else ("y", "output")
        label = given.get(name, None if several else labels)
        terms.append(Term(name, _loss(loss, forward, name, label), float(share), y, gives))
    return tuple(terms)


def _loss(spec: OneLoss, forward: Forward, output: str, label: Any) -> Loss:
    if isinstance(spec, str):
        return find_loss(spec)
    if not callable(spec):
        raise ConversionError(
            f"a {type(spec).__name__} is no loss; give a name, a callable or losses by output"
        )
    if label is None:
        raise ConversionError(
            f"loss {loss_name(spec)!r} is a callable, which does not say what its labels are: give label= "
            f"with example labels or a TensorSpec (by output {output!r} where there are several)"
        )
    given = forward.graph.outputs[output]
    return traced_loss(spec, given, _label_type(label, given.shape[0]), forward.provenance.get("source", ""))


def _label_type(label: Any, batch: int) -> TensorType:
    """Labels as the step takes them: float32, or int32 for whole numbers."""
    value = label if isinstance(label, TensorSpec) else np.asarray(label)
    kind = np.dtype(value.dtype).kind
    if kind not in "fiub" or not value.shape:
        raise ConversionError(
            f"label has dtype {value.dtype} and shape {value.shape}; give numbers with the batch axis first"
        )
    return TensorType(np.dtype(np.float32 if kind == "f" else np.int32), (batch, *value.shape[1:]))
