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
    losses,
    normalization,
    recurrent,
    shapes,
)
from edgefl.converters.normalize.joining import JOINS
from edgefl.converters.normalize.narrow import narrow
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
    return simplify(narrow(simplify(replay(graph, REWRITES))))


def simplify(graph: Graph) -> Graph:
    """A normalised graph that moves less data; for step graphs too.

    Sums of padded pieces become one Concat; transposes and reshapes sink and cancel as long as fewer elements
    are transposed for it.
    """
    graph = replay(graph, JOINS)
    for _ in range(_PASSES):
        smaller = replay(graph, SIMPLIFICATIONS)
        if _transposed_elements(smaller) > _transposed_elements(graph):
            return graph
        if smaller.operators() == graph.operators():
            return smaller
        graph = smaller
    return graph


def _transposed_elements(graph: Graph) -> int:
    return sum(graph.type_of(node.outputs[0]).size for node in graph if node.op == "Transpose")
