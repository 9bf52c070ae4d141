# SPDX-License-Identifier: Apache-2.0
"""Attention over other than four axes, which the exporter refuses, as attention over four."""

from __future__ import annotations

import math
from typing import Any

_AXES = 4  # batch, heads, positions, features


def fold_attention(program: Any, dropout: bool) -> None:
    """Change an exported program: the axes before the last two of an attention become one, and come back.

    `dropout` says that dropout is kept, which is not done here: else attention has none.
    """
    import torch

    graph = program.graph
    for node in list(graph.nodes):
        if node.target is not torch.ops.aten.scaled_dot_product_attention.default:
            continue
        if not dropout:
            _without_dropout(node)
        if node.meta["val"].dim() != _AXES:
            _fold(graph, node)
    program.graph_module.recompile()


def _without_dropout(node: Any) -> None:
    if len(node.args) > 4:
        node.update_arg(4, 0.0)
    node.kwargs = {name: given for name, given in node.kwargs.items() if name != "dropout_p"}


def _fold(graph: Any, node: Any) -> None:
    """Queries, keys and values of `[..., L, E]` as `[N, 1, L, E]`, a mask that has such axes likewise."""
    outer, whole = tuple(node.meta["val"].shape[:-2]), node.meta["val"]
    query, key, value, *rest = node.args
    with graph.inserting_before(node):
        if node.kwargs.get("enable_gqa", False):
            key, value = (_repeated(graph, tensor, outer[-1]) for tensor in (key, value))
            node.kwargs = {name: given for name, given in node.kwargs.items() if name != "enable_gqa"}
        folded = [_folded(graph, tensor, outer) for tensor in (query, key, value)]
        if rest and rest[0] is not None and rest[0].meta["val"].dim() > 2:
            rest[0] = _folded(graph, rest[0], outer)
        if (mask := node.kwargs.get("attn_mask")) is not None and mask.meta["val"].dim() > 2:
            node.update_kwarg("attn_mask", _folded(graph, mask, outer))
    node.args = (*folded, *rest)
    node.meta["val"] = whole.reshape(math.prod(outer), 1, *whole.shape[-2:])
    with graph.inserting_after(node):
        back = _call(graph, "reshape", node, tuple(whole.shape))
    node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)


def _repeated(graph: Any, tensor: Any, heads: int) -> Any:
    """Keys or values of fewer heads, each as often as queries share it: those of one head lie together."""
    *batch, shared, length, size = tensor.meta["val"].shape
    if shared == heads:
        return tensor
    apart = _call(graph, "unsqueeze", tensor, -3)
    copies = _call(graph, "expand", apart, (*batch, shared, heads // shared, length, size))
    return _call(graph, "reshape", copies, (*batch, heads, length, size))


def _folded(graph: Any, tensor: Any, outer: tuple[int, ...]) -> Any:
    shape = tuple(tensor.meta["val"].shape[-2:])
    if tuple(tensor.meta["val"].shape[:-2]) != outer:
        tensor = _call(graph, "expand", tensor, (*outer, *shape))
    return _call(graph, "reshape", tensor, (math.prod(outer), 1, *shape))


def _call(graph: Any, operator: str, tensor: Any, how: tuple[int, ...] | int) -> Any:
    import torch

    to = list(how) if isinstance(how, tuple) else how
    made = graph.call_function(getattr(torch.ops.aten, operator).default, (tensor, to))
    made.meta["val"] = getattr(tensor.meta["val"], operator)(to)
    return made
