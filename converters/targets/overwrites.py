# SPDX-License-Identifier: Apache-2.0
"""What TFLite's memory planner lets an operator write over although it is still to be read.

The rule, the same in tflite-runtime 2.14 and LiteRT 2.3 (a test compares it with the addresses both give):

- a view's output has its input's memory;
- an elementwise operator writes into the memory of its first input of the output's size, over 4 bytes, that
  nothing else reads, unless the tensor that first had this memory has several readers;
- inputs of the graph and constants are never shared, outputs of the graph never share.

Only that first tensor and the input itself have their readers counted. So where a tensor in between has
several, the operator writes over what the others read. A delegate that takes some of the operators makes
another tensor the first, hides readers of it and changes the order; so an operator is accused here if
anything else that reads its memory, other than what had it first, need not have run before it.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgefl.errors import ConversionError

VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "BITCAST")
WRITERS = {"ADD": 2, "SUB": 2, "MUL": 2, "DIV": 2, "SOFTMAX": 1, "DYNAMIC_UPDATE_SLICE": 1}
"""Operators that may write over an input, and how many of their inputs may be it."""
_ITEM_BYTES = {"BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FLOAT16": 2, "BFLOAT16": 2}
_ITEM_BYTES |= {"INT32": 4, "UINT32": 4, "FLOAT32": 4, "INT64": 8, "UINT64": 8, "FLOAT64": 8, "COMPLEX64": 8}
_UNSHARED_BYTES = 4


@dataclass(frozen=True)
class Overwrite:
    """An operator that writes too early.

    Attributes:
        writer: its place among the operators.
        over: the input whose memory it takes.
        shared: the tensor of that memory with several readers.
        reader: the place of one that may come after the writer.
        read: the tensor of that memory which it reads.
    """

    writer: int
    over: int
    shared: int
    reader: int
    read: int


def refuse_overwrites(model: Any) -> None:
    """Check a finished model (TFLite's object tree).

    Raises:
        ConversionError: an interpreter would let an operator write over what is still to be read.
    """
    for graph in model.subgraphs:
        plan = _Plan(model, graph)
        for found in plan.overwrites():
            writer, reader = (f"{at} ({plan.names[at]})" for at in (found.writer, found.reader))
            raise ConversionError(
                f"TFLite's memory planner would let operator {writer} write over tensor {found.over}, whose "
                f"memory operator {reader} still reads, and the file would compute wrong numbers; "
                "leave TFLite out (targets=('onnx',), --target onnx) and report the model"
            )


def overwrites(model: Any) -> list[Overwrite]:
    """All operators of a model with one subgraph that may write too early, at most one entry each."""
    return list(_Plan(model, model.subgraphs[0]).overwrites())


class _Plan:
    """Who may share whose memory in one subgraph."""

    def __init__(self, model: Any, graph: Any) -> None:
        self.names = _operator_names(model, graph)
        self._inputs = [[int(t) for t in one.inputs if t >= 0] for one in graph.operators]
        self._outputs = [[int(t) for t in one.outputs if t >= 0] for one in graph.operators]
        self._bytes = _sizes(graph)
        self._given = {int(t) for t in graph.inputs}
        self._results = {int(t) for t in graph.outputs}
        self._constants = {t for t, one in enumerate(graph.tensors) if _has_data(model, one)}
        self._readers: dict[int, list[int]] = collections.defaultdict(list)
        for place, inputs in enumerate(self._inputs):
            for tensor in inputs:
                self._readers[tensor].append(place)
        self._makers = {t: place for place, outputs in enumerate(self._outputs) for t in outputs}
        self._sources = self._shareable()
        self._heirs = {self._outputs[at][0] for at in range(len(self.names)) if any(self._alike(at))}

    def overwrites(self) -> Iterator[Overwrite]:
        suspects = self._suspects()
        for place, name in enumerate(self.names):
            if name in WRITERS:
                found = (self._accuse(place, over, suspects) for over in self._of(place))
                yield from [one for one in found if one is not None][:1]

    def _of(self, place: int) -> tuple[int, ...]:
        """Inputs whose memory an operator may take."""
        outputs = self._outputs[place]
        return self._sources.get(outputs[0], ()) if outputs else ()

    def _shareable(self) -> dict[int, tuple[int, ...]]:
        """By output: the input whose memory it may have.

        What is made of constants alone may be made once and kept, which is not shared: there are two then.
        """
        fixed = set(self._constants)
        sources = {}
        for place, inputs in enumerate(self._inputs):
            if inputs and fixed.issuperset(inputs):
                fixed.update(self._outputs[place])
            candidates: list[int] = []
            for tensor in self._candidates(place):
                candidates.append(tensor)
                if tensor not in fixed:
                    break
            if candidates:
                sources[self._outputs[place][0]] = tuple(candidates)
        return sources

    def _candidates(self, place: int) -> Iterator[int]:
        view = self.names[place] in VIEWS
        return (tensor for tensor in self._alike(place) if view or self._count(tensor) == 1)

    def _alike(self, place: int) -> Iterator[int]:
        """Inputs whose memory an operator could take, were nothing else to read them."""
        name, outputs = self.names[place], self._outputs[place]
        if not outputs or outputs[0] in self._results:
            return
        size = self._bytes[outputs[0]]
        for tensor in self._inputs[place][: 1 if name in VIEWS else WRITERS.get(name, 0)]:
            fits = name in VIEWS or self._bytes[tensor] == size > _UNSHARED_BYTES
            if fits and tensor not in self._given and tensor not in self._constants:
                yield tensor

    def _count(self, tensor: int) -> int:
        return len(self._readers[tensor]) + (tensor in self._results)

    def _suspects(self) -> dict[int, list[int]]:
        """By tensor: itself and those before it in its memory that have several readers, but those that
        surely had the memory first. Only tensors that have such are listed.
        """
        suspects: dict[int, list[int]] = {}
        for outputs in self._outputs:
            for tensor in outputs[:1]:
                found = [one for source in self._sources.get(tensor, ()) for one in suspects.get(source, ())]
                if tensor in self._heirs and self._count(tensor) > 1:
                    found.append(tensor)
                if found:
                    suspects[tensor] = found
        return suspects

    def _accuse(self, writer: int, over: int, suspects: dict[int, list[int]]) -> Overwrite | None:
        before: set[int] | None = None
        for shared in suspects.get(over, ()):
            before = self._ancestors(writer) if before is None else before
            for reader, read in self._family(shared, writer):
                if reader not in before:
                    return Overwrite(writer, over, shared, reader, read)
        return None

    def _family(self, shared: int, writer: int) -> Iterator[tuple[int, int]]:
        """Operators besides the writer that read a tensor's memory, and by which tensor they do."""
        waiting, seen = [shared], {shared}
        while waiting:
            tensor = waiting.pop()
            for reader in self._readers[tensor]:
                if reader == writer:
                    continue
                yield reader, tensor
                heir = self._outputs[reader][:1]
                if heir and tensor in self._sources.get(heir[0], ()) and heir[0] not in seen:
                    seen.update(heir)
                    waiting += heir

    def _ancestors(self, place: int) -> set[int]:
        """Operators that must run before one, in any order."""
        found: set[int] = set()
        waiting = [place]
        while waiting:
            for tensor in self._inputs[waiting.pop()]:
                maker = self._makers.get(tensor)
                if maker is not None and maker not in found:
                    found.add(maker)
                    waiting.append(maker)
        return found


def _operator_names(model: Any, graph: Any) -> list[str]:
    from tensorflow.lite.python import schema_py_generated as schema

    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [builtin.get(codes[one.opcodeIndex], "") for one in graph.operators]


def _sizes(graph: Any) -> list[int]:
    """Bytes by tensor; 0 where the type is none that an operator could write over."""
    from tensorflow.lite.python import schema_py_generated as schema

    items = {getattr(schema.TensorType, name, -1): size for name, size in _ITEM_BYTES.items()}
    shapes = ([] if one.shape is None else map(int, one.shape) for one in graph.tensors)
    return [math.prod(s) * items.get(one.type, 0) for one, s in zip(graph.tensors, shapes, strict=True)]


def _has_data(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0
