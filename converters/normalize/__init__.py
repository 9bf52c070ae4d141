# SPDX-License-Identifier: Apache-2.0
"""From whatever an exporter writes to the operators the rest of edgefl speaks.

Rewrites are one small function per operator, registered by name:

    @rewrite("Mish")
    def mish(b, node, inputs):
        return b.add("Mul", inputs[0], b.add("Tanh", b.add("Softplus", inputs[0])))
"""

from __future__ import annotations

from edgefl.converters.normalize import (  # noqa: F401  imported for their registrations
    activations,
    arithmetic,
    convolution,
    einsum,
    normalization,
    recurrent,
    shapes,
)
from edgefl.converters.normalize.registry import REWRITES, replay, rewrite
from edgefl.converters.normalize.simplify import SIMPLIFICATIONS
from edgefl.graph.model import Graph

__all__ = ["REWRITES", "normalize", "rewrite", "simplify"]

_PASSES = 4  # each pass can expose pairs to the next; whole networks settle in two


def normalize(graph: Graph) -> Graph:
    """The same function in the normalised operators of docs/architecture.md, types and shapes inferred.

    Inputs and outputs keep names, order and types; node names are kept for messages. Idempotent.

    Raises:
        UnsupportedOperator: an operator has neither rewrite nor kernel, or shapes would depend on data.
        ConversionError: a node's inputs do not fit together.
    """
    return simplify(replay(graph, REWRITES))


def simplify(graph: Graph) -> Graph:
    """A normalised graph with fewer transposes and reshapes; works on step graphs too."""
    for _ in range(_PASSES):
        smaller = replay(graph, SIMPLIFICATIONS)
        if smaller.operators() == graph.operators():
            return smaller
        graph = smaller
    return graph
