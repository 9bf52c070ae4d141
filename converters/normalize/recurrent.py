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

    What needs no state is computed for all steps at once, as rows: step `t` reads `[t * N, (t + 1) * N)`.

    Attributes:
        projected: `x @ W` and the biases that are only added, `[T * N, ...]`; side by side they are all
            gates, and those that a step reads apart are apart.
        recurrent: `[H, gates * H]`.
        bias: what is added to the last gate's columns of the recurrent product before the reset, or "".
        activations: ONNX operators, in the order the specification lists them.
        peepholes: `[3 * H]` (i o f), or "".
    """

    projected: tuple[str, ...]
    recurrent: str
    bias: str
    activations: tuple[str, ...]
    peepholes: str
    linear_before_reset: bool
    hidden: int


Step = Callable[[GraphBuilder, Cell, Sequence[str], tuple[str, ...]], tuple[str, ...]]
"""`(builder, cell, the step's rows of the projected, state) -> new state`; the hidden state comes first."""


def rnn_step(b: GraphBuilder, cell: Cell, x: Sequence[str], state: tuple[str, ...]) -> tuple[str, ...]:
    return (b.add(cell.activations[0], b.add("Add", x[0], b.add("MatMul", state[0], cell.recurrent))),)


def gru_step(b: GraphBuilder, cell: Cell, x: Sequence[str], state: tuple[str, ...]) -> tuple[str, ...]:
    h, n = state[0], cell.hidden
    f, g = cell.activations
    if cell.linear_before_reset:
        recurred = b.add("MatMul", h, cell.recurrent)
        gates = b.add(f, b.add("Add", x[0], take(b, recurred, 1, 0, 2 * n)))
        inner = _plus(b, take(b, recurred, 1, 2 * n, 3 * n), cell.bias)
        inner = b.add("Mul", take(b, gates, 1, n, 2 * n), inner)
    else:
        product = b.add("MatMul", h, take(b, cell.recurrent, 1, 0, 2 * n))
        gates = b.add(f, b.add("Add", x[0], product))
        reset = b.add("Mul", take(b, gates, 1, n, 2 * n), h)
        inner = b.add("MatMul", reset, take(b, cell.recurrent, 1, 2 * n, 3 * n))
    update = take(b, gates, 1, 0, n)
    candidate = b.add(g, b.add("Add", x[1], inner))
    return (b.add("Add", candidate, b.add("Mul", update, b.add("Sub", h, candidate))),)


def lstm_step(b: GraphBuilder, cell: Cell, x: Sequence[str], state: tuple[str, ...]) -> tuple[str, ...]:
    h, c = state
    n, (f, g, last) = cell.hidden, cell.activations
    sums = b.add("Add", x[0], b.add("MatMul", h, cell.recurrent))
    opened = "" if cell.peepholes else b.add(f, take(b, sums, 1, 0, 3 * n))  # all three by one operator

    def gate(index: int, memory: str) -> str:
        columns = index * n, (index + 1) * n
        if opened:
            return take(b, opened, 1, *columns)
        peephole = b.add("Mul", take(b, cell.peepholes, 0, *columns), memory)
        return b.add(f, b.add("Add", take(b, sums, 1, *columns), peephole))

    candidate = b.add(g, take(b, sums, 1, 3 * n, 4 * n))
    new = b.add("Add", b.add("Mul", gate(2, c), c), b.add("Mul", gate(0, c), candidate))
    return b.add("Mul", gate(1, new), b.add(last, new)), new


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
        now = [take(b, rows, 0, t * batch, (t + 1) * batch) for rows in cell.projected]
        state = step(b, cell, now, state)
        made[t] = state[0]
    return reshape(b, concat(b, [made[t] for t in range(steps)], 0), (steps, batch, cell.hidden)), *state


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

    steps, batch, features = b.shape(x)
    rows = reshape(b, x, (steps * batch, features))
    weights, before = transpose(b, part(1), (1, 0)), bool(integer(node, "linear_before_reset", 0))
    added, bias = _biases(b, part(3), gates * hidden, 2 * hidden if node.op == "GRU" and before else 0)
    parts = [(0, 2 * hidden), (2 * hidden, 3 * hidden)] if node.op == "GRU" else [(0, gates * hidden)]
    return Cell(
        projected=tuple(
            _plus(b, b.add("MatMul", rows, take(b, weights, 1, *columns)), _part(b, added, *columns))
            for columns in parts
        ),
        recurrent=transpose(b, part(2), (1, 0)),
        bias=bias,
        activations=_activations(node, direction),
        peepholes=part(7) if node.op == "LSTM" else "",
        linear_before_reset=before,
        hidden=hidden,
    )


def _biases(b: GraphBuilder, both: str, size: int, inside: int) -> tuple[str, str]:
    """What is added to the projected input, and to the recurrent product's columns from `inside` on."""
    if not both:
        return "", ""
    first, second = _part(b, both, 0, size), _part(b, both, size, 2 * size)
    if not inside:
        return b.add("Add", first, second), ""
    outer = b.add("Add", _part(b, first, 0, inside), _part(b, second, 0, inside))
    last = reshape(b, _part(b, second, inside, size), (1, size - inside))
    return concat(b, [outer, _part(b, first, inside, size)], 0), last


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
