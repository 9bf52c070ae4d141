# SPDX-License-Identifier: Apache-2.0
"""RNN, GRU and LSTM nodes unrolled over their static sequence length into products and activations.

Equations and gate order (GRU: z r h, LSTM: i o f c) are those of the ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.layout import concat, reshape, take, transpose
from edgefl.converters.normalize.registry import given, integer, number, rewrite, static_ints, text
from edgefl.errors import UnsupportedOperator
from edgefl.graph.model import Node

_ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softplus": "Softplus"}


@dataclass(frozen=True)
class Cell:
    """One direction of one node: `x` is `[T, N, I]`; weights already transposed for products from the left.

    Attributes:
        projected: `x @ W + input bias` for all steps at once, `[T, N, gates * H]`.
        recurrent: `[H, gates * H]`.
        bias: recurrent bias `[gates * H]`, or "".
        activations: ONNX operators, in the order the specification lists them.
        peepholes: `[3 * H]` (i o f), or "".
    """

    projected: str
    recurrent: str
    bias: str
    activations: tuple[str, ...]
    peepholes: str
    linear_before_reset: bool
    hidden: int


Step = Callable[[GraphBuilder, Cell, str, tuple[str, ...]], tuple[str, ...]]
"""`(builder, cell, projected input [N, gates * H], state) -> new state`; the hidden state comes first."""


def rnn_step(b: GraphBuilder, cell: Cell, x: str, state: tuple[str, ...]) -> tuple[str, ...]:
    return (b.add(cell.activations[0], b.add("Add", x, _recur(b, cell, state[0]))),)


def gru_step(b: GraphBuilder, cell: Cell, x: str, state: tuple[str, ...]) -> tuple[str, ...]:
    h, n = state[0], cell.hidden
    f, g = cell.activations
    if cell.linear_before_reset:
        recurred = _recur(b, cell, h)
        gates = b.add(f, b.add("Add", take(b, x, 1, 0, 2 * n), take(b, recurred, 1, 0, 2 * n)))
        inner = b.add("Mul", take(b, gates, 1, n, 2 * n), take(b, recurred, 1, 2 * n, 3 * n))
    else:
        product = b.add("MatMul", h, take(b, cell.recurrent, 1, 0, 2 * n))
        gates = b.add(
            f, b.add("Add", take(b, x, 1, 0, 2 * n), _plus(b, product, _part(b, cell.bias, 0, 2 * n)))
        )
        reset = b.add("Mul", take(b, gates, 1, n, 2 * n), h)
        inner = b.add("MatMul", reset, take(b, cell.recurrent, 1, 2 * n, 3 * n))
        inner = _plus(b, inner, _part(b, cell.bias, 2 * n, 3 * n))
    update = take(b, gates, 1, 0, n)
    candidate = b.add(g, b.add("Add", take(b, x, 1, 2 * n, 3 * n), inner))
    return (b.add("Add", candidate, b.add("Mul", update, b.add("Sub", h, candidate))),)


def lstm_step(b: GraphBuilder, cell: Cell, x: str, state: tuple[str, ...]) -> tuple[str, ...]:
    h, c = state
    n, (f, g, last) = cell.hidden, cell.activations
    gates = b.add("Add", x, _recur(b, cell, h))

    def gate(index: int, memory: str) -> str:
        peephole = _part(b, cell.peepholes, index * n, (index + 1) * n)
        part = take(b, gates, 1, index * n, (index + 1) * n)
        return b.add("Add", part, b.add("Mul", peephole, memory)) if peephole else part

    kept = b.add("Mul", b.add(f, gate(2, c)), c)
    candidate = b.add(g, take(b, gates, 1, 3 * n, 4 * n))
    new = b.add("Add", kept, b.add("Mul", b.add(f, gate(0, c)), candidate))
    return b.add("Mul", b.add(f, gate(1, new)), b.add(last, new)), new


def _recur(b: GraphBuilder, cell: Cell, h: str) -> str:
    return _plus(b, b.add("MatMul", h, cell.recurrent), cell.bias)


def _plus(b: GraphBuilder, x: str, bias: str) -> str:
    return b.add("Add", x, bias) if bias else x


def _part(b: GraphBuilder, vector: str, start: int, stop: int) -> str:
    return take(b, vector, 0, start, stop) if vector else ""


_KINDS: dict[str, tuple[Step, int, tuple[str, ...]]] = {
    "RNN": (rnn_step, 1, ("tanh",)),
    "GRU": (gru_step, 3, ("sigmoid", "tanh")),
    "LSTM": (lstm_step, 4, ("sigmoid", "tanh", "tanh")),
}


@rewrite(*_KINDS)
def recurrent(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    """Outputs Y `[T, D, N, H]` and the last state of each kind `[D, N, H]` (batch first with layout 1)."""
    _check(b, node, inputs)
    batch_first = integer(node, "layout", 0)
    x = transpose(b, inputs[0], (1, 0, 2)) if batch_first else inputs[0]
    directions = b.shape(inputs[1])[0]
    runs = [_run(b, node, x, inputs, i) for i in range(directions)]
    steps, batch, _ = b.shape(x)
    hidden = integer(node, "hidden_size", 0)
    y = concat(b, [reshape(b, run[0], (steps, 1, batch, hidden)) for run in runs], 1)
    lasts = [
        concat(b, [reshape(b, run[i], (1, batch, hidden)) for run in runs], 0) for i in range(1, len(runs[0]))
    ]
    if batch_first:
        return transpose(b, y, (2, 0, 1, 3)), *(transpose(b, last, (1, 0, 2)) for last in lasts)
    return y, *lasts


def _check(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> None:
    """Refuse what the unrolled steps would ignore."""
    steps = b.shape(inputs[0])[1 if integer(node, "layout", 0) else 0]
    lengths = static_ints(b, node, inputs, 4)
    if lengths is not None and any(n != steps for n in lengths):
        raise UnsupportedOperator(f"node {node}: sequences of different lengths; pad them and mask the loss")
    if number(node, "clip", 0.0) or integer(node, "input_forget", 0):
        raise UnsupportedOperator(f"node {node}: the attributes clip and input_forget are not supported")


def _run(b: GraphBuilder, node: Node, x: str, inputs: Sequence[str], direction: int) -> tuple[str, ...]:
    """All hidden states `[T, N, H]` of one direction, then its last states `[N, H]`."""
    step, gates, _ = _KINDS[node.op]
    cell = _cell(b, node, x, inputs, direction, gates)
    steps, batch, _ = b.shape(x)
    first = (5, 6) if node.op == "LSTM" else (5,)
    state = tuple(_initial(b, node, x, given(inputs, i), direction, cell.hidden) for i in first)
    backwards = text(node, "direction", "forward") == "reverse" or direction == 1
    made: dict[int, str] = {}
    for t in range(steps)[:: -1 if backwards else 1]:
        now = reshape(b, take(b, cell.projected, 0, t, t + 1), (batch, gates * cell.hidden))
        state = step(b, cell, now, state)
        made[t] = reshape(b, state[0], (1, batch, cell.hidden))
    return concat(b, [made[t] for t in range(steps)], 0), *state


def _initial(b: GraphBuilder, node: Node, x: str, states: str, direction: int, hidden: int) -> str:
    """A first state `[N, H]`: zeros unless given."""
    batch = b.shape(x)[1]
    if not states:
        return b.constant(np.zeros((batch, hidden), b.type(x).dtype))
    axis = 1 if integer(node, "layout", 0) else 0
    return reshape(b, take(b, states, axis, direction, direction + 1), (batch, hidden))


def _cell(b: GraphBuilder, node: Node, x: str, inputs: Sequence[str], direction: int, gates: int) -> Cell:
    hidden = integer(node, "hidden_size", 0)

    def part(index: int) -> str:
        tensor = given(inputs, index)
        return reshape(b, take(b, tensor, 0, direction, direction + 1), b.shape(tensor)[1:]) if tensor else ""

    bias = part(3)
    projected = b.add("MatMul", x, transpose(b, part(1), (1, 0)))
    return Cell(
        projected=_plus(b, projected, _part(b, bias, 0, gates * hidden)),
        recurrent=transpose(b, part(2), (1, 0)),
        bias=_part(b, bias, gates * hidden, 2 * gates * hidden),
        activations=_activations(node, direction),
        peepholes=part(7) if node.op == "LSTM" else "",
        linear_before_reset=bool(integer(node, "linear_before_reset", 0)),
        hidden=hidden,
    )


def _activations(node: Node, direction: int) -> tuple[str, ...]:
    default = _KINDS[node.op][2]
    names = node.attributes.get("activations", ())
    assert isinstance(names, tuple)
    wanted = [
        str(n).lower() for n in names[direction * len(default) : (direction + 1) * len(default)]
    ] or default
    unknown = [n for n in wanted if n not in _ACTIVATIONS]
    if unknown:
        raise UnsupportedOperator(f"node {node}: activations {unknown}; allowed are {sorted(_ACTIVATIONS)}")
    return tuple(_ACTIVATIONS[n] for n in wanted)
