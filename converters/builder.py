# SPDX-License-Identifier: Apache-2.0
"""Building graphs: types are inferred, constants folded and equal nodes shared as nodes are added.

Every node is executed once by its NumPy kernel when it is added, on its real inputs where all are known
and on zeros of the right shape otherwise (a single one, where the operator is element-wise). One kernel per
operator thus gives reference execution, shape inference and constant folding, and the three cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, overload

import numpy as np

from edgefl.errors import BackendFailure, ConversionError, GraphError
from edgefl.graph.inference import SHAPE_ONLY, infer, zeros
from edgefl.graph.interpreter import execute
from edgefl.graph.model import Array, Attribute, Graph, Node, TensorType

STOP_GRADIENT = "stop_gradient"  # an Identity whose name begins so passes values and no gradient
_FOLD_LIMIT = 1 << 22  # elements; a larger folded constant would bloat the artifact


class GraphBuilder:
    """Collects nodes; names of tensors are the handles."""

    def __init__(self, prefix: str = "t", *, channels_last: bool = False, correlations: bool = False) -> None:
        """`channels_last` says that the graph is for engines which keep images so: the same functions, with
        data moved in the order that costs them least. `correlations` says that it is for a writer which
        makes products of convolutions itself, given the gradient of each weight as one convolution."""
        self.channels_last = channels_last
        self.correlations = correlations
        self._prefix = prefix
        self._count = 0
        self._inputs: dict[str, TensorType] = {}
        self._outputs: dict[str, str] = {}
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}
        self._samples: dict[str, Array] = {}
        self._seen: dict[object, tuple[str, ...]] = {}
        self._producers: dict[str, Node] = {}
        self._types: dict[str, TensorType] = {}
        self._inferred: dict[object, tuple[TensorType, ...]] = {}  # unrolled loops repeat the same few nodes
        self.scope = ""  # name of nodes added without one; errors about a node quote it

    # -- tensors

    def input(self, name: str, type: TensorType) -> str:
        """Declare a graph input and return its name."""
        if not name or name in self._samples or name in self._outputs:
            raise GraphError(f"tensor name {name!r} is taken")
        self._inputs[name] = type
        self._samples[name] = zeros(type)
        return name

    def constant(self, value: Array | float | int | bool, dtype: object = None, hint: str = "c") -> str:
        """A constant tensor; equal constants share one name. Pass NumPy arrays, or scalars with a dtype."""
        array: Array = np.array(value, dtype=dtype, order="C")  # type: ignore[call-overload]
        key = ("constant", array.dtype.str, array.shape, hashlib.blake2b(array.data).digest())
        if key not in self._seen:
            name = self._fresh(hint)
            array.flags.writeable = False
            self._constants[name] = self._samples[name] = array
            self._seen[key] = (name,)
        return self._seen[key][0]

    def type(self, tensor: str) -> TensorType:
        """Type of a tensor made or declared so far."""
        if tensor not in self._samples:
            raise GraphError(f"unknown tensor {tensor!r}")
        if tensor not in self._types:
            self._types[tensor] = TensorType.of(self._samples[tensor])
        return self._types[tensor]

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.type(tensor).shape

    def value(self, tensor: str) -> Array | None:
        """The value of a tensor known at build time, else None."""
        return self._constants.get(tensor)

    def producer(self, tensor: str) -> Node | None:
        """The node that makes a tensor; None for inputs and constants."""
        return self._producers.get(tensor)

    # -- nodes

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes added so far, in order; folded and shared ones occur once or not at all."""
        return tuple(self._nodes)

    @overload
    def add(  # type: ignore[overload-overlap]
        self, op: str, *inputs: str, outputs: Literal[1] = 1, name: str = "", **attributes: Attribute
    ) -> str: ...
    @overload
    def add(
        self, op: str, *inputs: str, outputs: int, name: str = "", **attributes: Attribute
    ) -> tuple[str, ...]: ...
    def add(
        self, op: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Attribute
    ) -> str | tuple[str, ...]:
        """Add a node and return its output name, or the tuple of names when `outputs` is over 1.

        Raises:
            ConversionError: the kernel refuses these inputs.
            GraphError: an input is no tensor of this builder.
            UnsupportedOperator: there is no kernel for the operator.
        """
        made = self._share(op, inputs, outputs, name, attributes)
        return made[0] if outputs == 1 else made

    def output(self, name: str, tensor: str) -> None:
        """Make a tensor a graph output under the given name.

        Raises:
            GraphError: there is no such tensor, or the name is another tensor's.
        """
        self.type(tensor)
        if name in self._outputs or (name in self._samples and name != tensor) or name in self._inputs:
            raise GraphError(f"output name {name!r} is taken")
        self._outputs[name] = tensor

    def build(self, name: str = "graph") -> Graph:
        """The graph of what the outputs need, in the order nodes were added."""
        nodes = [*_live(self._nodes, self._outputs.values()), *self._output_nodes()]
        nodes = _rename_outputs(nodes, self._outputs, self._inputs, self._constants)
        used = {tensor for node in nodes for tensor in node.inputs}
        own = {t for node in nodes for t in (*node.inputs, *node.outputs) if t}
        types = {t: self.type(self._outputs.get(t, t)) for t in own}
        return Graph(
            inputs=dict(self._inputs),
            outputs={out: self.type(tensor) for out, tensor in self._outputs.items()},
            nodes=tuple(nodes),
            constants={n: v for n, v in self._constants.items() if n in used},
            types=types | dict(self._inputs),
            name=name,
        )

    # -- inside

    def _share(
        self, op: str, inputs: tuple[str, ...], outputs: int, name: str, attributes: Mapping[str, Attribute]
    ) -> tuple[str, ...]:
        key = (op, inputs, outputs, _hashable(attributes))
        if key not in self._seen:
            self._seen[key] = self._emit(op, inputs, outputs, name, attributes)
        return self._seen[key]

    def _emit(
        self, op: str, inputs: tuple[str, ...], outputs: int, name: str, attributes: Mapping[str, Attribute]
    ) -> tuple[str, ...]:
        names = tuple(self._fresh(op.lower()) for _ in range(outputs))
        node = Node(op, inputs, names, dict(attributes), name or self.scope or names[0])
        for tensor in filter(None, inputs):
            self.type(tensor)
        try:
            folded = self._fold(node)
            types = () if folded else self._infer(node)
        except BackendFailure as exc:
            raise ConversionError(str(exc)) from exc
        if folded:
            return tuple(self.constant(value, hint=op.lower()) for value in folded[:outputs])
        self._samples.update(zip(names, map(zeros, types), strict=False))
        self._nodes.append(node)
        self._producers.update(dict.fromkeys(names, node))
        return names

    def _infer(self, node: Node) -> tuple[TensorType, ...]:
        """Types of a node's outputs; those of a node alike, but for what its inputs hold, serve again."""
        inputs = (t if not t or t in self._constants else self.type(t) for t in node.inputs)
        key = (node.op, tuple(inputs), len(node.outputs), _hashable(node.attributes))
        if key not in self._inferred:
            self._inferred[key] = infer(node, self._samples)
        return self._inferred[key]

    def _fold(self, node: Node) -> tuple[Array, ...]:
        """Values of a node known at build time; empty where they are not, or are too large to keep."""
        if node.op not in SHAPE_ONLY and not all(not t or t in self._constants for t in node.inputs):
            return ()
        with np.errstate(all="ignore"):
            results = execute(node, self._samples)
        return results if sum(r.size for r in results) <= _FOLD_LIMIT else ()

    def _output_nodes(self) -> list[Node]:
        """Identity nodes for outputs that are inputs, constants, or another output's tensor too."""
        seen: set[str] = set()
        extra = []
        for out, tensor in self._outputs.items():
            if tensor in self._inputs or tensor in self._constants or tensor in seen:
                extra.append(Node("Identity", (tensor,), (out,), {}, out))
            seen.add(tensor)
        return extra

    def _fresh(self, hint: str) -> str:
        while True:
            self._count += 1
            name = f"{self._prefix}{self._count}_{hint}"
            if name not in self._samples and name not in self._outputs:
                return name


def _hashable(attributes: Mapping[str, Attribute]) -> tuple[object, ...]:
    def key(value: Attribute) -> object:
        return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value

    return tuple((name, key(value)) for name, value in sorted(attributes.items()))


def _live(nodes: list[Node], wanted: object) -> list[Node]:
    needed = set(wanted)  # type: ignore[call-overload]
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return kept[::-1]


def _rename_outputs(
    nodes: list[Node],
    outputs: Mapping[str, str],
    inputs: Mapping[str, object],
    constants: Mapping[str, object],
) -> list[Node]:
    """Give each output's producing node the output's own name."""
    rename: dict[str, str] = {}
    for out, tensor in outputs.items():
        if tensor not in inputs and tensor not in constants:
            rename.setdefault(tensor, out)
    return [
        Node(
            node.op,
            tuple(rename.get(t, t) for t in node.inputs),
            tuple(rename.get(t, t) for t in node.outputs),
            node.attributes,
            node.name,
        )
        for node in nodes
    ]
