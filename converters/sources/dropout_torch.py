# SPDX-License-Identifier: Apache-2.0
"""PyTorch's dropout kept in an exported program, as nodes `edgefl.Dropout` with a rate and a mask's shape."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from functools import cache
from typing import Any

from edgefl.converters.instead import instead_of
from edgefl.converters.sources.layers_torch import layer_of
from edgefl.converters.sources.onnx_model import DROPOUT_OPERATOR, STOP_DOMAIN
from edgefl.errors import SourceError

ALWAYS_OFF = ("BatchNorm", "InstanceNorm", "RNN", "LSTM", "GRU")
"""Modules whose training mode changes more than dropout, or whose dropout cannot be seen."""

_DROPS = ("dropout", "feature_dropout")
_SWITCHES = ("training", "train")
"""Arguments by which an operator that may be random is told to be so."""


@contextlib.contextmanager
def keeping(model: Any) -> Iterator[None]:
    """Training mode for all that only has dropout, none of it in place, and attention written out."""
    modules = [m for m in model.modules() if not any(word in type(m).__name__ for word in ALWAYS_OFF)]
    placed = [m for m in modules if "Dropout" in type(m).__name__ and getattr(m, "inplace", False)]
    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(setattr, module, "training", module.training)
            module.training = True
        for module in placed:
            stack.callback(setattr, module, "inplace", True)
            module.inplace = False
        stack.enter_context(_attention_written_out())
        yield


@contextlib.contextmanager
def _attention_written_out() -> Iterator[None]:
    """Within it attention's dropout is an operator of its own, by whatever name attention is called.

    A mode sees calls of models, by names they took before; torch's own functions look the name up.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    functional = torch.nn.functional
    fused = functional.scaled_dot_product_attention
    attention = _written_out(fused)

    class WritingOut(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return (attention if function is fused else function)(*args, **(kwargs or {}))

    functional.scaled_dot_product_attention = attention
    try:
        with WritingOut():
            yield
    finally:
        functional.scaled_dot_product_attention = fused


def _written_out(fused: Any) -> Any:
    """Attention whose dropout is an operator of its own."""
    import torch

    def attention(
        query: Any,
        key: Any,
        value: Any,
        attn_mask: Any = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Any:
        if not dropout_p:
            return fused(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = (t.repeat_interleave(groups, -3) for t in (key, value))
        length, seen = query.shape[-2], key.shape[-2]
        scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(~torch.ones(length, seen, dtype=torch.bool).tril(), float("-inf"))
        elif attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        return torch.nn.functional.dropout(torch.softmax(scores, -1), dropout_p, True) @ value

    return attention


def mark_dropout(program: Any) -> int:
    """Turn the dropout of a `torch.export.ExportedProgram` into `edgefl::dropout`; how many there were."""
    count = 0
    for node in list(program.graph.nodes):
        operator = _operator_name(node)
        if operator in _DROPS:
            x, rate, training = node.args
            if training and rate > 0:
                shape = tuple(node.meta["val"].shape)
                whole = len(shape) if operator == "dropout" else 2
                mask = [*shape[:whole], *(1,) * (len(shape) - whole)]
                node.target, node.args = _target(), (x, float(rate), mask, count)
                count += 1
    program.graph_module.recompile()
    return count


def refuse_randomness(program: Any, dropout: bool) -> None:
    """Raise SourceError for randomness other than dropout, which no seed could repeat.

    The exporter would draw some of it once, and make a constant of it.
    """
    for node in program.graph.nodes:
        operator = _operator_name(node)
        if node.op == "call_function" and node.users and operator not in _DROPS and _is_random(node):
            where = f"layer {layer}: " if (layer := layer_of(node)) else ""
            advice = (
                "dropout=True cannot keep: convert without it, or write it with torch.nn.Dropout"
                if dropout
                else f"no step can repeat: {instead_of(operator)}"
            )
            raise SourceError(f"{where}{operator} is random in a way that {advice}")


def _operator_name(node: Any) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _is_random(node: Any) -> bool:
    """Whether a node draws from PyTorch's generator; the operators say themselves whether they may."""
    import torch

    operator = node.target
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    given = dict(zip((a.name for a in operator._schema.arguments), node.args, strict=False)) | node.kwargs
    if operator.name().startswith("aten::scaled_dot_product_attention"):
        return bool(given.get("dropout_p"))
    if torch.Tag.nondeterministic_seeded not in operator.tags:
        return False
    switches = [a for a in operator._schema.arguments if a.name in _SWITCHES]
    return all(given.get(a.name, a.default_value) for a in switches)


def _target() -> Any:
    import torch

    _operator()
    return torch.ops.edgefl.dropout.default


@cache
def _operator() -> Any:
    """The operator `edgefl::dropout`, opaque to the exporter; `layer` keeps two of them apart."""
    import torch

    operator = torch.library.custom_op(
        f"{STOP_DOMAIN}::dropout",
        lambda x, rate, shape, layer: torch.clone(x),
        mutates_args=(),
        schema="(Tensor x, float rate, int[] shape, int layer) -> Tensor",
    )
    operator.register_fake(lambda x, rate, shape, layer: torch.empty_like(x))
    return operator


def translations() -> dict[Any, Any]:
    """For `torch.onnx.export(custom_translation_table=...)`."""
    import onnx
    from onnxscript import values

    schema = onnx.defs.OpSchema(
        DROPOUT_OPERATOR,
        STOP_DOMAIN,
        1,
        inputs=[onnx.defs.OpSchema.FormalParameter("x", "T")],
        outputs=[onnx.defs.OpSchema.FormalParameter("y", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(double)", "tensor(float16)"], "")],
        attributes=[
            onnx.defs.OpSchema.Attribute("rate", onnx.defs.OpSchema.AttrType.FLOAT, required=True),
            onnx.defs.OpSchema.Attribute("shape", onnx.defs.OpSchema.AttrType.INTS, required=True),
            onnx.defs.OpSchema.Attribute("layer", onnx.defs.OpSchema.AttrType.INT, required=True),
        ],
    )
    operator = values.Op(values.Opset(STOP_DOMAIN, 1), DROPOUT_OPERATOR, schema)
    return {_target(): lambda x, rate, shape, layer: operator(x, rate=rate, shape=tuple(shape), layer=layer)}
