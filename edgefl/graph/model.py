# SPDX-License-Identifier: Apache-2.0
"""The graph every part of edgefl speaks: static-shape ONNX (opset 18, standard domain) as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import GraphError

OPSET = 18
_IN_LAYER = " in layer "

Array = npt.NDArray[Any]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array


@dataclass(frozen=True)
class TensorType:
    """A tensor's element type and static shape."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @staticmethod
    def of(array: Array) -> TensorType:
        return TensorType(array.dtype, tuple(array.shape))

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def in_layer(name: str, layer: str) -> str:
    """A node's name that says which layer of the user's model the node is of, as `path (Class)`."""
    return f"{name}{_IN_LAYER}{layer}" if layer else name


@dataclass(frozen=True, eq=False)
class Node:
    """One operator application. An omitted optional input or output is the empty name.

    A name may say which layer the node is of (`in_layer`): for messages, files have the rest of it.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    name: str = ""

    @property
    def label(self) -> str:
        """The name without the layer."""
        return self.name.partition(_IN_LAYER)[0]

    @property
    def layer(self) -> str:
        """The layer the node is of, as `path (Class)`; empty where it is not known."""
        return self.name.partition(_IN_LAYER)[2]

    def __str__(self) -> str:
        return in_layer(f"{self.op} {self.label or self.outputs[0]!r}", self.layer)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in execution order, with typed inputs and outputs.

    Attributes:
        inputs: name to type, in signature order.
        outputs: name to type, in signature order.
        nodes: topologically sorted.
        constants: name to value (ONNX initializers).
        types: type of every tensor in the graph where known (inputs, constants, intermediates, outputs).
    """

    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    types: Mapping[str, TensorType] = field(default_factory=dict)
    name: str = "graph"

    def type_of(self, tensor: str) -> TensorType:
        """Type of a tensor; raises GraphError when the graph does not know it."""
        for table in (self.types, self.inputs, self.outputs):
            if tensor in table:
                return table[tensor]
        if tensor in self.constants:
            return TensorType.of(self.constants[tensor])
        raise GraphError(f"graph {self.name!r} has no type for tensor {tensor!r}")

    def producers(self) -> dict[str, Node]:
        """Tensor name to the node that makes it."""
        return {out: node for node in self.nodes for out in node.outputs if out}

    def consumers(self) -> dict[str, list[Node]]:
        """Tensor name to the nodes that read it, in execution order."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for tensor in dict.fromkeys(node.inputs):
                if tensor:
                    readers.setdefault(tensor, []).append(node)
        return readers

    def operators(self) -> dict[str, int]:
        """How often each operator occurs, sorted by name."""
        counts: dict[str, int] = {}
        for node in self.nodes:
            counts[node.op] = counts.get(node.op, 0) + 1
        return dict(sorted(counts.items()))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)
