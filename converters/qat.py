# SPDX-License-Identifier: Apache-2.0
"""Quantization-aware training: products compute with what int8 will keep of their operands.

Weights take the grid of the int8 export, symmetric with one scale per output channel; activations take 255
steps over the range of the batch, zero included. Both are found anew in each step: ranges seen before
training would clip what training changes. Gradients pass the rounding as if it were not there (the
straight-through estimator: Bengio et al. 2013; Jacob et al. 2018).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgefl.converters.builder import STOP_GRADIENT
from edgefl.graph import Array, Graph, Node, TensorType

_LEVELS, _STEPS = 127, 255
_CHANNEL = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}
_TINY = 1e-12
_F = np.dtype(np.float32)


def fake_quantize(graph: Graph, trained: Collection[str], data: Collection[str]) -> Graph:
    """The graph with the operands of trained products rounded to int8.

    Args:
        graph: a forward graph; frozen parameters are constants.
        trained: names of the inputs that are trained.
        data: names of the data inputs.
    """
    fed = _downstream(graph, data)
    chosen = {node.outputs[0] for node in _products(graph, trained, fed)}
    made = _Made(graph)
    for node in graph:
        if node.outputs[0] in chosen:
            operands = [_operand(made, node, place, fed) for place in (0, 1)]
            node = replace(node, inputs=(*operands, *node.inputs[2:]))
        made.nodes.append(node)
    types = {**graph.types, **made.types}
    constants = {**graph.constants, **made.constants}
    return replace(graph, nodes=tuple(made.nodes), constants=constants, types=types)


def _products(graph: Graph, trained: Collection[str], fed: Collection[str]) -> list[Node]:
    learned = _downstream(graph, trained)
    return [
        node
        for node in graph
        if node.op in _CHANNEL
        and node.inputs[0] in fed
        and (node.inputs[1] in learned or node.inputs[1] in fed)
    ]


def _downstream(graph: Graph, sources: Collection[str]) -> set[str]:
    reached = set(sources)
    for node in graph:
        if not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
    return reached


@dataclass
class _Made:
    """A graph being extended; a tensor read by several products is rounded once."""

    graph: Graph
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    rounded: dict[tuple[str, int | None], str] = field(default_factory=dict)

    def constant(self, name: str, value: float | Array) -> str:
        array = np.asarray(value, np.int64 if isinstance(value, np.ndarray) else _F)
        self.constants[name], self.types[name] = array, TensorType.of(array)
        return name

    def node(
        self, op: str, output: str, shape: Sequence[int], *inputs: str, name: str = "", **more: int
    ) -> str:
        self.nodes.append(Node(op, inputs, (output,), dict(more), name))
        self.types[output] = TensorType(_F, tuple(shape))
        return output


def _operand(made: _Made, node: Node, place: int, fed: Collection[str]) -> str:
    tensor = node.inputs[place]
    shape = made.graph.type_of(tensor).shape
    channel = None if tensor in fed else _CHANNEL[node.op] % len(shape)
    if (tensor, channel) not in made.rounded:
        made.rounded[tensor, channel] = (
            _activation(made, tensor, shape) if channel is None else _weight(made, tensor, shape, channel)
        )
    return made.rounded[tensor, channel]


def _weight(made: _Made, tensor: str, shape: tuple[int, ...], channel: int) -> str:
    """The weight on a grid of 255 values per output channel, the largest of which the channel reaches."""
    at = f"{tensor}/int8/{channel}"
    small = tuple(n if axis == channel else 1 for axis, n in enumerate(shape))
    others = np.array([axis for axis in range(len(shape)) if axis != channel], np.int64)
    size = made.node("Abs", f"{at}/size", shape, tensor)
    most = made.node("ReduceMax", f"{at}/most", small, size, made.constant(f"{at}/axes", others), keepdims=1)
    above = made.node("Max", f"{at}/above", small, most, made.constant(f"{at}/tiny", _TINY))
    scale = made.node("Mul", f"{at}/scale", small, above, made.constant(f"{at}/part", 1 / _LEVELS))
    return _on_grid(made, at, tensor, shape, scale)


def _activation(made: _Made, tensor: str, shape: tuple[int, ...]) -> str:
    """The activation on a grid of 255 steps over its range, with zero among its values."""
    at, alone = f"{tensor}/int8", (1,) * len(shape)
    axes = made.constant(f"{at}/axes", np.arange(len(shape)))
    zero = made.constant(f"{at}/zero", 0.0)
    least = made.node("ReduceMin", f"{at}/least", alone, tensor, axes, keepdims=1)
    most = made.node("ReduceMax", f"{at}/most", alone, tensor, axes, keepdims=1)
    low = made.node("Min", f"{at}/low", alone, least, zero)
    high = made.node("Max", f"{at}/high", alone, most, made.constant(f"{at}/tiny", _TINY))
    span = made.node("Sub", f"{at}/span", alone, high, low)
    scale = made.node("Mul", f"{at}/scale", alone, span, made.constant(f"{at}/part", 1 / _STEPS))
    return _on_grid(made, at, tensor, shape, scale)


def _on_grid(made: _Made, at: str, tensor: str, shape: tuple[int, ...], scale: str) -> str:
    """The nearest multiples of the scale, with the gradient of the tensor itself."""
    level = made.node("Round", f"{at}/level", shape, made.node("Div", f"{at}/ratio", shape, tensor, scale))
    value = made.node("Mul", f"{at}/value", shape, level, scale)
    moved = made.node("Sub", f"{at}/moved", shape, value, tensor)
    fixed = made.node("Identity", f"{at}/fixed", shape, moved, name=f"{STOP_GRADIENT}/{at}")
    return made.node("Add", f"{at}/rounded", shape, tensor, fixed)
