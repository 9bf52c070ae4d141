# SPDX-License-Identifier: Apache-2.0
"""Sums of padded pieces as one Concat.

The gradient of a tensor that was cut into pieces is a sum of the pieces' gradients, each padded with zeros
to the full size: work and memory grow with the square of the number of pieces, which for the steps of an
unrolled recurrent layer is what the whole step then costs. Pieces that do not overlap are joined instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.layout import concat
from edgefl.converters.normalize.registry import Rewrite, keep, registrar
from edgefl.graph.model import Node

JOINS: dict[str, Rewrite] = {}
join = registrar(JOINS)


@dataclass(frozen=True)
class Pieces:
    """A tensor of zeros but for sorted pieces along one axis that do not overlap: `(start, tensor)`."""

    axis: int
    parts: tuple[tuple[int, str], ...]


@join("Add")
def add(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    left, right = (_pieces(b, tensor) for tensor in inputs)
    same = b.shape(inputs[0]) == b.shape(inputs[1])
    if left is None or right is None or left.axis != right.axis or not same:
        return keep(b, node, inputs)
    parts = sorted((*left.parts, *right.parts))
    stops = [start + b.shape(tensor)[left.axis] for start, tensor in parts]
    if any(stop > start for stop, (start, _) in zip(stops, parts[1:], strict=False)):
        return keep(b, node, inputs)
    return _filled(b, Pieces(left.axis, tuple(parts)), inputs[0])


def _pieces(b: GraphBuilder, tensor: str) -> Pieces | None:
    node = b.producer(tensor)
    if node is None or node.op not in ("Pad", "Concat"):
        return None
    return _padded(b, node) if node.op == "Pad" else _joined(b, node)


def _padded(b: GraphBuilder, node: Node) -> Pieces | None:
    """One piece with zeros around it along a single axis."""
    amounts = b.value(node.inputs[1])
    plain = node.attributes.get("mode", "constant") == "constant" and len(node.inputs) <= 3
    if amounts is None or not plain or not _is_zero(b, node.inputs[2] if len(node.inputs) == 3 else ""):
        return None
    before, after = np.split(amounts, 2)
    axes = np.flatnonzero((before != 0) | (after != 0))
    if len(axes) != 1 or amounts.min() < 0:
        return None
    return Pieces(int(axes[0]), ((int(before[axes[0]]), node.inputs[0]),))


def _joined(b: GraphBuilder, node: Node) -> Pieces | None:
    """Pieces with zeros between them."""
    axis = node.attributes["axis"]
    assert isinstance(axis, int)
    sizes = [b.shape(t)[axis] for t in node.inputs]
    starts = np.cumsum([0, *sizes])[:-1]
    found = [(int(s), t) for s, t in zip(starts, node.inputs, strict=True) if not _is_zero(b, t)]
    return Pieces(axis, tuple(found)) if len(found) < len(node.inputs) else None


def _is_zero(b: GraphBuilder, tensor: str) -> bool:
    value = b.value(tensor) if tensor else np.zeros(())
    return value is not None and not np.any(value)


def _filled(b: GraphBuilder, pieces: Pieces, like: str) -> str:
    """The pieces and the zeros between them in the shape of `like`."""
    type = b.type(like)
    row: list[str] = []
    at = 0
    for start, tensor in (*pieces.parts, (type.shape[pieces.axis], "")):
        if start > at:
            gap = (*type.shape[: pieces.axis], start - at, *type.shape[pieces.axis + 1 :])
            row.append(b.constant(np.zeros(gap, type.dtype)))
        if tensor:
            row.append(tensor)
            at = start + b.shape(tensor)[pieces.axis]
    return concat(b, row, pieces.axis)
