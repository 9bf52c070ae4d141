# SPDX-License-Identifier: Apache-2.0
"""Loss functions of the frameworks as graphs `(output, y) -> values`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgefl.converters.normalize import normalize
from edgefl.converters.sources.forward import renamed
from edgefl.converters.sources.onnx_model import to_graph
from edgefl.errors import SourceError
from edgefl.graph.model import Graph, TensorType


def trace_loss(function: Any, output: TensorType, label: TensorType, framework: str) -> tuple[Graph, str]:
    """A loss as a graph with the inputs `output` and `y` and the output `loss`, and how it reduces.

    Keras losses are called as `loss(y_true, y_pred)`, PyTorch's as `loss(output, y)` with class numbers as
    int64. Where a loss offers it, it is asked for its values without reduction.

    Args:
        function: a callable, or a loss object or class of the framework.
        framework: `keras` or `pytorch`.

    Returns:
        The normalised graph, and `sum` where the loss would add up its values rather than take their mean.

    Raises:
        SourceError: it cannot be traced.
    """
    made = _instance(function)
    name = f"loss {loss_name(function)!r}"
    reduction = str(getattr(made, "reduction", ""))
    proto = (
        _from_keras(_unreduced(made), output, label, name)
        if framework == "keras"
        else _from_torch(_unreduced(made), output, label, name)
    )
    graph = to_graph(proto)
    if len(graph.outputs) != 1:
        raise SourceError(f"{name} returns {len(graph.outputs)} tensors, expected one")
    graph = normalize(renamed(graph, dict.fromkeys(graph.outputs, "loss")))
    return graph, "sum" if reduction in ("sum", "batchmean") else "mean"


def loss_name(function: Any) -> str:
    """What a loss callable is called: its own name, or its class's."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__name__", "") or type(function).__name__)


def framework_of(function: Any) -> str:
    """`keras` or `pytorch` for objects and classes of theirs, "" for plain functions."""
    kind = function if inspect.isclass(function) else type(function)
    roots = {base.__module__.partition(".")[0] for base in kind.__mro__}
    module = str(getattr(function, "__module__", "")).partition(".")[0]
    found = roots & {"keras", "torch"} or {module} & {"keras", "torch"}
    return {"keras": "keras", "torch": "pytorch"}[found.pop()] if found else ""


def _instance(function: Any) -> Any:
    if not inspect.isclass(function):
        return function
    try:
        return function()
    except TypeError as exc:
        raise SourceError(
            f"{function.__name__} cannot be made without arguments: {exc}; give an object"
        ) from exc


def _unreduced(function: Any) -> Callable[..., Any]:
    """The loss without its reduction, where it has one that can be switched off."""
    if "keras" in {base.__module__.partition(".")[0] for base in type(function).__mro__}:
        return getattr(function, "call", function)  # type: ignore[no-any-return]
    if isinstance(getattr(function, "reduction", None), str):
        function = copy.copy(function)
        function.reduction = "none"
        return function  # type: ignore[no-any-return]
    if _takes_reduction(function):
        return partial(function, reduction="none")
    return function  # type: ignore[no-any-return]


def _takes_reduction(function: Callable[..., Any]) -> bool:
    try:
        return "reduction" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _from_keras(function: Callable[..., Any], output: TensorType, label: TensorType, name: str) -> Any:
    from edgefl.converters.sources.keras import trace

    def losses(output: Any, y: Any) -> list[Any]:
        import tensorflow as tf

        return [tf.identity(t) for t in tf.nest.flatten(function(y, output))]

    traced = trace(losses, {"output": output, "y": label}, name)
    _refuse_parameters(name, traced.variables)
    return traced.proto


def _from_torch(function: Any, output: TensorType, label: TensorType, name: str) -> Any:
    import torch

    from edgefl.converters.sources.pytorch import export, zeros
    from edgefl.converters.sources.stopping_torch import marking

    class Losses(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.function = function  # registers what a loss module holds, such as weights of classes

        def forward(self, output: Any, y: Any) -> Any:
            with marking():
                return self.function(output, y if y.is_floating_point() else y.long())

    module = Losses().eval()
    _refuse_parameters(name, list(module.parameters()))
    return export(module, (zeros(output), zeros(label)), ["output", "y"], module, name).proto


def _refuse_parameters(name: str, held: Sequence[Any]) -> None:
    if held:
        raise SourceError(
            f"{name} has {len(held)} parameters of its own; they would not be trained: make them part of the "
            "model, or buffers"
        )
