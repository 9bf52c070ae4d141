# SPDX-License-Identifier: Apache-2.0
"""Einsum of one or two operands as transpose, reduction and matrix product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.arithmetic import reduce
from edgefl.converters.normalize.layout import reshape, transpose
from edgefl.converters.normalize.registry import rewrite, text
from edgefl.errors import UnsupportedOperator
from edgefl.graph.model import Node


@rewrite("Einsum")
def einsum(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    terms, result = _letters(b, node, inputs)
    if len(inputs) > 2 or any(len(set(t)) < len(t) for t in (*terms, result)):
        raise UnsupportedOperator(
            f"node {node}: Einsum {text(node, 'equation')!r}; "
            "at most two operands without repeated letters are supported"
        )
    if len(inputs) == 1:
        x, letters = _sum_out(b, inputs[0], terms[0], set(result))
        return transpose(b, x, [letters.index(c) for c in result])
    return _product(b, (inputs[0], terms[0]), (inputs[1], terms[1]), result)


def _letters(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> tuple[list[str], str]:
    """Letters of each operand and of the result; an ellipsis becomes capital letters not used otherwise."""
    equation = text(node, "equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    free = [chr(c) for c in range(ord("A"), ord("Z") + 1) if chr(c) not in equation]
    widths = [len(b.shape(t)) - len(term.replace("...", "")) for t, term in zip(inputs, terms, strict=True)]
    widest = max((w for w, term in zip(widths, terms, strict=True) if "..." in term), default=0)
    dots = "".join(free[:widest])
    terms = [t.replace("...", dots[len(dots) - w :] if w else "") for t, w in zip(terms, widths, strict=True)]
    if not arrow:
        joined = "".join(terms)
        right = dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in dots))
    return terms, right.replace("...", dots)


def _sum_out(b: GraphBuilder, x: str, letters: str, wanted: set[str]) -> tuple[str, str]:
    """`x` summed over the letters nobody wants."""
    axes = [i for i, c in enumerate(letters) if c not in wanted]
    x = reduce(b, "ReduceSum", x, axes, False) if axes else x
    return x, "".join(c for c in letters if c in wanted)


def _product(b: GraphBuilder, left: tuple[str, str], right: tuple[str, str], result: str) -> str:
    """Letters are shared and kept (batch), shared and summed, or of one side only."""
    (x, xs), (y, ys) = (
        _sum_out(b, *one, set(other[1]) | set(result)) for one, other in ((left, right), (right, left))
    )
    batch = [c for c in result if c in xs and c in ys]
    summed = [c for c in xs if c in ys and c not in result]
    rows, columns = [c for c in xs if c not in ys], [c for c in ys if c not in xs]
    size = _sizes(b, (x, xs), (y, ys))
    x3 = _grouped(b, x, xs, (batch, rows, summed))
    y3 = _grouped(b, y, ys, (batch, summed, columns))
    order = [*batch, *rows, *columns]
    z = reshape(b, b.add("MatMul", x3, y3), [size[c] for c in order])
    return transpose(b, z, [order.index(c) for c in result])


def _sizes(b: GraphBuilder, *operands: tuple[str, str]) -> dict[str, int]:
    size: dict[str, int] = {}
    for tensor, letters in operands:
        for c, n in zip(letters, b.shape(tensor), strict=True):
            if size.setdefault(c, n) != n:
                raise UnsupportedOperator(
                    f"Einsum letter {c!r} stands for {size[c]} and for {n}; broadcasting is not supported"
                )
    return size


def _grouped(b: GraphBuilder, x: str, letters: str, groups: Sequence[list[str]]) -> str:
    """`x` with its axes ordered by group, groups flattened; an empty first group is dropped."""
    x = transpose(b, x, [letters.index(c) for group in groups for c in group])
    shape = iter(b.shape(x))
    flat = [int(np.prod([next(shape) for _ in group], dtype=np.int64)) for group in groups]
    return reshape(b, x, flat if groups[0] else flat[1:])
