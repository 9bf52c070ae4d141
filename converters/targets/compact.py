# SPDX-License-Identifier: Apache-2.0
"""Weight-only storage in ONNX: rounded constants as integers, dequantized in the graph by standard operators.

Opset 18 has no four-bit type, so two integers share a byte and come apart by arithmetic that is exact in
float32. Engines that fold constants do this once, when they load the file. DequantizeLinear would do int8,
but newer onnxruntimes see leave in it to round the other operand of a product to eight bits as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from edgefl.converters.weights import Packed, packed
from edgefl.graph import Array, Graph, Node, TensorType


@dataclass
class _Prologue:
    """Nodes and constants that make a graph's weights, in front of its own nodes."""

    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)
    made: dict[bytes, str] = field(default_factory=dict)

    def constant(self, name: str, value: Array) -> str:
        self.constants[name] = value
        self.types[name] = TensorType.of(value)
        return name

    def node(self, op: str, inputs: tuple[str, ...], output: str, value: Array, **attributes: object) -> str:
        self.nodes.append(Node(op, inputs, (output,), attributes))  # type: ignore[arg-type]
        self.types[output] = TensorType.of(value)
        return output


def compact(graph: Graph, bits: int) -> Graph:
    """The same function with rounded constants stored in 8 or 4 bits; others stay as they are."""
    start = _Prologue()
    kept: dict[str, Array] = {}
    for name, value in graph.constants.items():
        found = packed(value, bits)
        if found is None:
            kept[name] = value
        elif found.bits == 8:
            _add_rows(start, name, found)
        else:
            _add_blocks(start, name, found)
    types = {**graph.types, **start.types}
    constants = {**kept, **start.constants}
    return replace(graph, nodes=(*start.nodes, *graph.nodes), constants=constants, types=types)


def stored_bits(graph: Graph) -> int | None:
    """The bits in which a graph from `compact` stores weights, 4 where some are in 4; None for any other."""
    read = {
        graph.constants[name].dtype.name
        for node in graph
        if node.op == "Cast"
        for name in node.inputs
        if name in graph.constants
    }
    if "uint8" in read:
        return 4
    return 8 if "int8" in read else None


def _add_rows(start: _Prologue, name: str, weight: Packed) -> None:
    levels = start.constant(f"{name}/int8", weight.levels)
    along = [1] * weight.levels.ndim
    along[weight.axis] = -1
    scale = start.constant(f"{name}/scale", weight.scale.reshape(along))
    wide = start.node("Cast", (levels,), f"{name}/wide", weight.value, to=1)
    start.node("Mul", (wide, scale), name, weight.value)


def _add_blocks(start: _Prologue, name: str, weight: Packed) -> None:
    """Orientations of one weight share its integers."""
    value = weight.value
    whole = np.ascontiguousarray(value.transpose(np.argsort(weight.perm)))
    key = weight.levels.tobytes() + weight.scale.tobytes()
    turned = weight.perm != tuple(range(len(weight.perm)))
    if key not in start.made:
        start.made[key] = _unpacked(start, f"{name}/whole" if turned else name, weight, whole)
    if turned:
        start.node("Transpose", (start.made[key],), name, value, perm=weight.perm)
    elif start.made[key] != name:
        start.node("Identity", (start.made[key],), name, value)


def _unpacked(start: _Prologue, name: str, weight: Packed, whole: Array) -> str:
    """Nodes from bytes to the weight: the high half is the byte over 16, rounded down; the rest is low."""
    stored = nibbles(weight.levels)
    data = start.constant(f"{name}/int4", stored)
    wide = stored.astype(np.float32)
    sixteen = start.constant(f"{name}/sixteen", np.array(16, np.float32))
    eight = start.constant(f"{name}/eight", np.array(8, np.float32))
    scale = start.constant(f"{name}/scale", weight.scale[:, None])
    shape = start.constant(f"{name}/shape", np.array(weight.shape, np.int64))
    both = np.concatenate([wide, wide], 1)
    f32 = start.node("Cast", (data,), f"{name}/wide", wide, to=1)
    high = start.node(
        "Floor", (start.node("Div", (f32, sixteen), f"{name}/part", wide),), f"{name}/high", wide
    )
    rest = start.node("Mul", (high, sixteen), f"{name}/rest", wide)
    low = start.node("Sub", (f32, rest), f"{name}/low", wide)
    pair = start.node("Concat", (low, high), f"{name}/pair", both, axis=1)
    level = start.node("Sub", (pair, eight), f"{name}/level", both)
    block = start.node("Mul", (level, scale), f"{name}/blocks", both)
    return start.node("Reshape", (block, shape), name, whole)


def nibbles(levels: Array) -> Array:
    """Integers in [-7, 7], `[n, block]`, as uint8 `[n, block / 2]`: plus eight, a block's first half low."""
    half = levels.shape[1] // 2
    raised = (levels + 8).astype(np.uint8)
    return raised[:, :half] | (raised[:, half:] << 4)
