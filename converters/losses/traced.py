# SPDX-License-Identifier: Apache-2.0
"""Losses given as callables of the model's framework, traced into the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.graft import graft
from edgefl.converters.losses.registry import Loss
from edgefl.converters.sources.functions import framework_of, loss_name, trace_loss
from edgefl.errors import ConversionError
from edgefl.graph import Interpreter
from edgefl.graph.model import Array, Graph, TensorType

_TOLERANCE = 1e-4


def traced_loss(function: Callable[..., Any], output: TensorType, label: TensorType, source: str) -> Loss:
    """A callable as a loss with one value per example.

    What it gives beyond the batch axis is averaged for each example, or added up where the loss's own
    reduction is a sum.

    Args:
        output: the type of the model's output.
        label: the type of `y`.
        source: the model's, `keras`, `pytorch` or `onnx`; for `onnx` the callable's own framework is taken.

    Raises:
        ConversionError: the values are not one or more per example, or those of one example depend on others,
            so that padded batches would not be exact.
    """
    name = loss_name(function)
    framework = source if source in ("keras", "pytorch") else framework_of(function)
    if not framework:
        raise ConversionError(
            f"loss {name!r} is a plain function and the model comes from {source}: give a loss by name, or "
            "an object of keras.losses or torch.nn"
        )
    graph, reduction = trace_loss(function, output, label, framework)
    found = graph.outputs["loss"].shape
    if not found or found[0] != output.shape[0]:
        raise ConversionError(
            f"loss {name!r} gives shape {found} for a batch of {output.shape[0]}; a loss has to give one "
            "value per example, [B], so that padded and weighted batches are exact: leave out its mean or "
            "sum, or give reduction='none'"
        )
    _check_independent(name, graph, output.shape[0])

    def per_example(output: Expr, y: Expr) -> Expr:
        bound = {"output": output.name, "y": y.name}
        values = Expr(output.builder, graft(output.builder, graph, bound, ["loss"])["loss"])
        count = int(np.prod(values.shape[1:])) if reduction == "mean" else 1
        return values.sum(range(1, values.rank)) / float(count)

    return Loss(f"callable:{name}", lambda _: label, per_example)


def _check_independent(name: str, graph: Graph, batch: int) -> None:
    """Raise ConversionError where a loss changes with the other examples of its batch."""
    if batch < 2:
        return
    random = np.random.default_rng(0)
    feeds = {n: _values(random, type) for n, type in graph.inputs.items()}
    others = {n: _values(random, type) for n, type in graph.inputs.items()}
    for n in others:
        others[n][0] = feeds[n][0]
    run = Interpreter(graph)
    with np.errstate(all="ignore"):
        one, two = (run(f)["loss"][0] for f in (feeds, others))
    if not np.allclose(one, two, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
        raise ConversionError(
            f"loss {name!r} of an example depends on the other examples of the batch, so padded batches "
            "would not be exact: compute it for each example alone (reduction='none', no mean over the "
            "batch), or take one of the losses by name that compare examples, info_nce and nt_xent"
        )


def _values(random: np.random.Generator, type: TensorType) -> Array:
    """Numbers in (0, 1), valid as scores and as probabilities; class numbers 0 and 1."""
    if type.dtype.kind == "f":
        return random.uniform(0.05, 0.95, type.shape).astype(type.dtype)
    return random.integers(0, 2, type.shape).astype(type.dtype)
