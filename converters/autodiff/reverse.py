# SPDX-License-Identifier: Apache-2.0
"""Reverse-mode differentiation: from a scalar back to the tensors wanted, along the paths between only."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from edgefl.converters.autodiff.expression import Expr, zeros_like
from edgefl.converters.autodiff.registry import FLAT, VJPS, Gradient, NoGradient, Op, emit
from edgefl.converters.autodiff.sums import total
from edgefl.converters.builder import STOP_GRADIENT, GraphBuilder
from edgefl.errors import NotDifferentiable
from edgefl.graph.model import Node

_NAMED = 8  # parameters a refusal spells out


def gradients(builder: GraphBuilder, of: str, wrt: Sequence[str]) -> dict[str, str]:
    """Append the nodes that compute the gradient of a scalar.

    Args:
        builder: holds the forward nodes; the gradient's nodes are added to it.
        of: a floating-point tensor of one element.
        wrt: the tensors wanted, floating-point.

    Returns:
        For each wanted tensor its gradient, of the same shape and dtype. A tensor is absent when no path of
        floating-point tensors leads from it to `of`: its gradient is zero everywhere.

    Raises:
        NotDifferentiable: an operator on such a path has no gradient. The message names the node, its
            operator, the wanted tensors upstream of it and what to freeze to get past it.
    """
    nodes = builder.nodes
    active = _reached_from(builder, nodes, wrt)
    adjoints: dict[str, list[Expr]] = {}
    if of in active:
        adjoints[of] = [Expr(builder, builder.constant(np.ones(builder.shape(of), builder.type(of).dtype)))]
    for node in reversed(nodes):
        if not active.isdisjoint(node.outputs) and any(out in adjoints for out in node.outputs):
            dy = [_total(builder, adjoints, out, wrt) for out in node.outputs]
            for tensor, gradient in _pull(builder, node, dy, active, wrt):
                adjoints.setdefault(tensor, []).append(gradient)
    return {name: total(adjoints[name]).name for name in wrt if name in adjoints}


def _reached_from(builder: GraphBuilder, nodes: Sequence[Node], sources: Collection[str]) -> set[str]:
    """The floating-point tensors that depend on the sources through floating-point tensors."""
    reached = {name for name in sources if _is_float(builder, name)}
    for node in nodes:
        if not _is_flat(node) and not reached.isdisjoint(node.inputs):
            reached.update(out for out in node.outputs if out and _is_float(builder, out))
    return reached


def _is_flat(node: Node) -> bool:
    """The gradient is zero: of a step function, or where the model says that it stops."""
    return node.op in FLAT or (node.op == "Identity" and node.name.startswith(STOP_GRADIENT))


def _is_float(builder: GraphBuilder, tensor: str) -> bool:
    return bool(np.issubdtype(builder.type(tensor).dtype, np.floating))


def _total(builder: GraphBuilder, adjoints: dict[str, list[Expr]], tensor: str, wrt: Sequence[str]) -> Expr:
    """The gradient of a tensor all of whose readers have been passed; kept where it is itself wanted."""
    if tensor not in adjoints:
        return zeros_like(Expr(builder, tensor))
    made = total(adjoints.pop(tensor))
    if tensor in wrt:
        adjoints[tensor] = [made]
    return made


def _pull(
    builder: GraphBuilder, node: Node, dy: Sequence[Expr], active: set[str], wrt: Sequence[str]
) -> list[tuple[str, Expr]]:
    """The gradients of a node's inputs that lie on a path."""
    pullback = VJPS.get(node.op)
    if pullback is None:
        raise NotDifferentiable(_refusal(builder, node, "edgefl has no gradient for this operator", wrt))
    try:
        found = pullback(Op(builder, node), *dy)
        pairs = [(t, g) for t, g in zip(node.inputs, found, strict=True) if t in active]
        return [(tensor, _checked(builder, node, tensor, g)) for tensor, g in pairs]
    except NoGradient as exc:
        raise NotDifferentiable(_refusal(builder, node, str(exc), wrt)) from exc


def _checked(builder: GraphBuilder, node: Node, tensor: str, gradient: Gradient) -> Expr:
    if gradient is None:
        raise NoGradient(f"its input {tensor!r} depends on a trainable parameter and has no gradient")
    result = emit(gradient)
    if builder.type(result.name) != builder.type(tensor):
        raise NotDifferentiable(
            f"the gradient of {node} for {tensor!r} came out as {builder.type(result.name)}, "
            f"expected {builder.type(tensor)}"
        )
    return result


def _refusal(builder: GraphBuilder, node: Node, reason: str, wrt: Sequence[str]) -> str:
    upstream = _upstream(builder.nodes, node, wrt)
    rest = [name for name in wrt if name not in upstream]
    advice = (
        f"freeze them to train the other {len(rest)}: trainable={_pattern(upstream)!r}"
        if rest
        else "no wanted parameter lies after it, so the operator has to be replaced in the model"
    )
    return (
        f"cannot differentiate node {node}: {reason}. "
        f"It lies between the loss and {len(upstream)} trainable parameters: {_listed(upstream)}; {advice}"
    )


def _upstream(nodes: Sequence[Node], last: Node, wrt: Sequence[str]) -> list[str]:
    """The wanted tensors a node depends on."""
    needed = set(last.inputs)
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
    return [name for name in wrt if name in needed]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _pattern(names: Sequence[str]) -> str:
    """A selection that leaves the named parameters out: whole modules where they share a prefix."""
    prefixes = dict.fromkeys(f"!{n.rsplit(s, 1)[0]}{s}*" if (s := _separator(n)) else f"!{n}" for n in names)
    return ",".join(["*", *prefixes])


def _separator(name: str) -> str:
    return next((s for s in ("/", ".") if s in name), "")
