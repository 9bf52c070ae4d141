# SPDX-License-Identifier: Apache-2.0
"""TFLite's memory planner and partitioner, imitated: what an interpreter reads after it was written over.

Shares nothing with `edgefl.converters.targets.overwrites`, which must accuse at least these.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from tensorflow.lite.python import schema_py_generated as schema

VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
IN_PLACE = {"ADD": (0, 1), "SUB": (0, 1), "MUL": (0, 1), "DIV": (0, 1), "SOFTMAX": (0,)}


@dataclass(frozen=True)
class Node:
    """An operator, or several that a delegate took."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A graph of float32 tensors, its nodes in the order of execution."""

    nodes: tuple[Node, ...]
    sizes: tuple[int, ...]
    constants: frozenset[int]
    inputs: frozenset[int]
    outputs: tuple[int, ...]

    def owners(self) -> dict[int, int]:
        """By tensor that has another's memory: the tensor that had it first."""
        readers = collections.Counter((*self.outputs, *self.inputs))
        readers.update(tensor for node in self.nodes for tensor in node.inputs)
        kept = set(self.constants)  # a view of a constant is made once
        owners: dict[int, int] = {}
        for node in self.nodes:
            if node.name in VIEWS and node.inputs[0] in kept:
                kept.add(node.outputs[0])
            taken = self._taken(node, kept, readers)
            if taken is None:
                continue
            owner = owners.get(taken, taken)
            if node.name in VIEWS or readers[owner] < 2:
                owners[node.outputs[0]] = owner
        return owners

    def _taken(self, node: Node, kept: set[int], readers: collections.Counter[int]) -> int | None:
        for slot in (0,) if node.name in VIEWS else IN_PLACE.get(node.name, ()):
            tensor, output = node.inputs[slot], node.outputs[0]
            if tensor in kept or tensor in self.inputs or output in self.outputs:
                continue
            alike = self.sizes[tensor] == self.sizes[output] > 1
            if node.name in VIEWS or (alike and readers[tensor] < 2):
                return tensor
        return None

    def stale(self) -> list[tuple[Node, int]]:
        """Nodes that read a tensor which is not in its memory any more."""
        owners = self.owners()
        holds: dict[int, int] = {}  # owner: the write that its memory is from
        writes: dict[int, int] = {}  # tensor: the write that made it
        found = []
        for place, node in enumerate(self.nodes):
            found += [(node, t) for t in node.inputs if t in writes and holds[owners.get(t, t)] != writes[t]]
            for output in node.outputs:
                owner = owners.get(output, output)
                view = node.name in VIEWS and output in owners
                writes[output] = writes[node.inputs[0]] if view else place
                if not view:
                    holds[owner] = place
        return found

    def delegated(self, claimed: Collection[int]) -> Plan:
        """With the claimed nodes in a delegate, which takes all it can at a time, as TFLite does."""
        makers = {tensor: place for place, node in enumerate(self.nodes) for tensor in node.outputs}
        waiting, done = list(range(len(self.nodes))), set[int]()
        order: list[list[int]] = []
        while waiting:
            kind: bool | None = None
            group = []
            for place in list(waiting):
                before = {makers[tensor] for tensor in self.nodes[place].inputs if tensor in makers}
                if before <= done and kind in (None, place in claimed):
                    kind = place in claimed
                    done.add(place)
                    waiting.remove(place)
                    group.append(place)
            order += [group] if kind else [[place] for place in group]
        nodes = [self._joined(g) if g[0] in claimed else self.nodes[g[0]] for g in order]
        return Plan(tuple(nodes), self.sizes, self.constants, self.inputs, self.outputs)

    def _joined(self, group: list[int]) -> Node:
        inside = {tensor for place in group for tensor in self.nodes[place].outputs}
        outside = {t for at, node in enumerate(self.nodes) if at not in group for t in node.inputs}
        inputs = dict.fromkeys(t for place in group for t in self.nodes[place].inputs if t not in inside)
        given = sorted(inside & (outside | set(self.outputs)))
        return Node("DELEGATE", tuple(inputs), tuple(given))


def plan_of(model: Any) -> Plan:
    """What the planner is given of TFLite's object tree."""
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    graph = model.subgraphs[0]
    nodes = tuple(
        Node(
            builtin[model.operatorCodes[one.opcodeIndex].builtinCode],
            tuple(int(t) for t in one.inputs),
            tuple(int(t) for t in one.outputs),
        )
        for one in graph.operators
    )
    filled = [model.buffers[one.buffer].data is not None for one in graph.tensors]
    return Plan(
        nodes,
        tuple(math.prod(map(int, one.shape)) for one in graph.tensors),
        frozenset(tensor for tensor, full in enumerate(filled) if full),
        frozenset(map(int, graph.inputs)),
        tuple(map(int, graph.outputs)),
    )
