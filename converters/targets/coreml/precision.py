# SPDX-License-Identifier: Apache-2.0
"""Training steps in float16: what stays in float32, and a loss scale that keeps gradients from vanishing.

Micikevicius et al., "Mixed Precision Training", 2018: the loss is multiplied by a power of two before
gradients are taken, and the gradients are divided by it in float32. Parameters come in and gradients go out
in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgefl.errors import ConversionError
from edgefl.graph import Array, Graph, Node, TensorType
from edgefl.graph.interpreter import execute

KEPT = frozenset(
    {
        "exp",
        "log",
        "pow",
        "real_div",
        "reduce_sum",
        "reduce_mean",
        "reduce_prod",
        "softmax",
        "sqrt",
        "cumsum",
        "erf",
    }
)
"""Operators that stay in float32: sums lose small terms in float16, the others span too many magnitudes."""

LARGEST_SCALE = 2.0**16
_HEADROOM = 16.0
_MAX = float(np.finfo(np.float16).max)


def in_half(borders: Collection[str]) -> Callable[[Any], bool]:
    """Which operations are computed in float16: not those kept, nor those that make these outputs."""
    return lambda operation: operation.op_type not in KEPT and operation.name not in borders


def scaled(step: Graph, scale: float) -> Graph:
    """The step with every gradient multiplied by `scale` from the loss on; the loss stays as it is.

    The loss is the mean `sum(u l)` with shares `u = weight / sum(weight)`, and gradients are linear in `u`:
    what leads to gradients reads `scale u` instead.

    Raises:
        ConversionError: the graph is not a step that this converter made.
    """
    share = _share(step)
    gradients = {name for name in step.outputs if name.startswith("grad/")}
    needed = _ancestors(step, gradients)
    constants = {**step.constants, f"{share}/scale": np.array(scale, np.float32)}
    larger = f"{share}/scaled"
    nodes: list[Node] = []
    for node in step:
        if share in node.inputs and not needed.isdisjoint(node.outputs):
            node = replace(node, inputs=tuple(larger if name == share else name for name in node.inputs))
        nodes.append(node)
        if share in node.outputs:
            nodes.append(Node("Mul", (share, f"{share}/scale"), (larger,)))
    types = {
        **step.types,
        larger: step.type_of(share),
        f"{share}/scale": TensorType(np.dtype(np.float32), ()),
    }
    return replace(step, nodes=tuple(nodes), constants=constants, types=types)


def _share(step: Graph) -> str:
    """The tensor of the examples' shares in the loss.

    Losses that leave labels out also count by weight what is left, which is a factor like any other.
    """
    found = [n for n in step if n.op == "Div" and n.inputs[0] == "weight"]
    readers = [n for n in step if "weight" in n.inputs and n not in found]
    if len(found) != 1 or any(n.op not in ("ReduceSum", "Mul") for n in readers):
        raise ConversionError(
            "float16 needs a step whose loss is a weighted mean over `weight`; this is none"
        )
    return found[0].outputs[0]


def _ancestors(graph: Graph, tensors: set[str]) -> set[str]:
    """The tensors and everything they are computed from."""
    needed = set(tensors)
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
    return needed


def choose_scale(step: Graph, feeds: Mapping[str, Array]) -> float:
    """The largest power of two, up to 65536, that leaves every backward value a sixteenth of float16's range.

    Args:
        feeds: the step's inputs: a batch and parameters.
    """
    share = _share(step)
    after = {share}
    for node in step:
        if not after.isdisjoint(node.inputs):
            after.update(node.outputs)
    backward = after & _ancestors(step, {name for name in step.outputs if name.startswith("grad/")})
    peak = max((value for name, value in _peaks(step, feeds) if name in backward), default=1.0)
    room = _MAX / _HEADROOM / max(peak, float(np.finfo(np.float16).tiny))
    return float(min(max(2.0 ** np.floor(np.log2(room)), 1.0), LARGEST_SCALE))


def _peaks(graph: Graph, feeds: Mapping[str, Array]) -> Iterator[tuple[str, float]]:
    """The largest magnitude of every float tensor, while the graph runs."""
    last = {name: i for i, node in enumerate(graph.nodes) for name in (*node.inputs, *node.outputs)}
    values = {**graph.constants, **feeds}
    with np.errstate(all="ignore"):
        for i, node in enumerate(graph.nodes):
            made = dict(zip(node.outputs, execute(node, values), strict=False))
            values.update(made)
            yield from (
                (n, float(np.abs(v).max())) for n, v in made.items() if v.dtype.kind == "f" and v.size
            )
            for name in {*node.inputs, *node.outputs}:
                if last[name] == i:
                    values.pop(name, None)
