# SPDX-License-Identifier: Apache-2.0
"""Random TFLite files of views, elementwise operators and sums of what came before, beside NumPy's values.

Written straight by the schema, so that thousands are made in a minute and nothing simplifies them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from edgefl.converters.targets import TFLiteModel
from edgefl.converters.targets.aliasing import untangle
from edgefl.converters.targets.flatbuffer_edit import Editor
from edgefl.graph import Array

SHAPES = ((24,), (4, 6), (2, 3, 4), (6, 4), (1, 24), (2, 1, 12), (2, 2, 2, 3), (1, 2, 3, 4), (2, 2, 2, 3, 1))
LARGEST, LOOSEST = 64.0, 1e-3
"""No value is larger, and none less certain: an operator that would go beyond is not added."""
_BINARY = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "MAXIMUM": np.maximum}
_ROUNDING, _ENGINE_EXP = 2.0**-23, 1e-5


@dataclass(frozen=True)
class Tangle:
    """A file, an input for it and what must come out.

    Attributes:
        feeds: by contract name.
        wanted: each output, and how far an engine's rounding may take it away.
    """

    model: TFLiteModel
    feeds: dict[str, Array]
    wanted: dict[str, tuple[Array, float]]

    def differs(self, found: dict[str, Array]) -> bool:
        return any(np.abs(found[name] - value).max() > far for name, (value, far) in self.wanted.items())


@dataclass(frozen=True)
class _Value:
    tensor: int
    array: Array
    error: float

    @property
    def usable(self) -> bool:
        return bool(np.abs(self.array).max() <= LARGEST) and self.error <= LOOSEST


def tangle(seed: int) -> Tangle:
    """The file of a seed, with up to forty operators besides the reshapes between them."""
    return _Weaver(seed).weave()


def read(data: bytes) -> Any:
    """TFLite's object tree."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(data))


def untangled(one: Tangle) -> Tangle:
    """With the file as edgefl would write it."""
    model = read(one.model.data)
    untangle(model)
    data = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return Tangle(_described(data, len(one.feeds), len(one.wanted)), one.feeds, one.wanted)


class _Weaver:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = [], []
        self._model.subgraphs = [graph]
        self._editor = Editor(self._model)
        self._views = self._random.uniform(0.2, 0.6)
        self._given = [self._source(shape) for shape in SHAPES[:2]]
        self._constants = [self._source(SHAPES[1], constant=True) for _ in range(2)]

    def weave(self) -> Tangle:
        values = list(self._given)
        for _ in range(self._random.integers(6, 40)):
            near = values[max(0, len(values) - 5) :]
            made = self._step(self._pick(near), self._pick([*values, *self._constants]))
            if made.usable:
                values.append(made)
        made = values[len(self._given) :] or [self._elementwise("NEG", np.negative, values[0])]
        return self._finish(list(dict.fromkeys((made[-1].tensor, made[-2 % len(made)].tensor))), made)

    def _step(self, value: _Value, other: _Value) -> _Value:
        draw = self._random.random()
        if draw < self._views:
            return self._view(value)
        if draw < self._views + 0.1:
            return self._rare(value)
        other = other if other.array.shape == value.array.shape else self._reshape(other, value.array.shape)
        pair = (value, other) if self._random.random() < 0.5 else (other, value)
        name = str(self._random.choice(list(_BINARY), p=(0.45, 0.2, 0.25, 0.1)))
        return self._elementwise(name, _BINARY[name], *pair)

    def _view(self, value: _Value) -> _Value:
        ones = [axis for axis, n in enumerate(value.array.shape) if n == 1]
        draw = self._random.random()
        if draw < 0.15 and ones:
            return self._add(self._editor.unary("SQUEEZE"), [value], value.array.squeeze(), value.error)
        if draw < 0.3 and value.array.ndim < 4:
            axis = int(self._random.integers(value.array.ndim + 1))
            place = self._editor.tensor("axis", (), "INT32", np.array(axis, np.int32))
            operator = self._editor.unary("EXPAND_DIMS")
            operator.inputs = [place]
            return self._add(operator, [value], np.expand_dims(value.array, axis), value.error)
        return self._reshape(value, SHAPES[self._random.integers(len(SHAPES))])

    def _reshape(self, value: _Value, shape: tuple[int, ...]) -> _Value:
        return self._add(self._editor.reshape(shape), [value], value.array.reshape(shape), value.error)

    def _rare(self, value: _Value) -> _Value:
        """What never writes over its input, and SOFTMAX, which XNNPACK leaves alone at this beta."""
        kind = self._random.integers(4)
        if kind == 0:
            perm = tuple(int(axis) for axis in self._random.permutation(value.array.ndim))
            moved = np.ascontiguousarray(value.array.transpose(perm))
            return self._add(self._editor.transpose(perm), [value], moved, value.error)
        if kind < 3:
            return self._elementwise(*(("NEG", np.negative), ("ABS", np.abs))[kind - 1], value)
        operator = self._editor.unary("SOFTMAX")
        operator.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
        operator.builtinOptions = schema.SoftmaxOptionsT()
        operator.builtinOptions.beta = 2.0
        powers = np.exp(2 * (value.array - value.array.max(-1, keepdims=True)))
        # Of its derivative every row sums to no more than beta / 2 in magnitude.
        error = value.error + _ENGINE_EXP
        return self._add(operator, [value], powers / powers.sum(-1, keepdims=True), error)

    def _elementwise(self, name: str, function: Callable[..., Any], *values: _Value) -> _Value:
        made = function(*(value.array for value in values))
        error = sum(value.error for value in values)
        if name == "MUL":
            error *= max(np.abs(value.array).max() for value in values) + error
        error += float(np.abs(made).max()) * _ROUNDING
        return self._add(self._editor.unary(name), list(values), made, error)

    def _add(self, operator: Any, values: list[_Value], array: Array, error: float) -> _Value:
        array = array.astype(np.float32)
        tensor = self._editor.tensor("t", array.shape, "FLOAT32")
        operator.inputs, operator.outputs = [*(v.tensor for v in values), *operator.inputs], [tensor]
        self._editor.operators.append(operator)
        return _Value(tensor, array, error)

    def _source(self, shape: tuple[int, ...], *, constant: bool = False) -> _Value:
        array = self._random.uniform(-1, 1, shape).astype(np.float32)
        return _Value(self._editor.tensor("t", shape, "FLOAT32", array if constant else None), array, 0.0)

    def _pick(self, values: list[_Value]) -> _Value:
        return values[self._random.integers(len(values))]

    def _finish(self, outputs: list[int], made: list[_Value]) -> Tangle:
        graph = self._editor.graph
        graph.inputs = np.array([value.tensor for value in self._given], np.int32)
        graph.outputs = np.array(outputs, np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "infer", 0
        signature.inputs = _entries("x", graph.inputs)
        signature.outputs = _entries("y", outputs)
        self._model.signatureDefs = [signature]
        data = bytes(flatbuffer_utils.convert_object_to_bytearray(self._model))
        known = {value.tensor: (value.array, 2 * value.error + _ROUNDING) for value in made}
        return Tangle(
            _described(data, len(self._given), len(outputs)),
            {f"x{place}": value.array for place, value in enumerate(self._given)},
            {f"y{place}": known[tensor] for place, tensor in enumerate(outputs)},
        )


def _described(data: bytes, inputs: int, outputs: int) -> TFLiteModel:
    counts = {"x": inputs, "y": outputs}
    names = ({f"{kind}{n}": f"{kind}{n}" for n in range(count)} for kind, count in counts.items())
    return TFLiteModel(data, *names, signature="infer")


def _entries(kind: str, tensors: Any) -> list[Any]:
    entries = []
    for place, tensor in enumerate(tensors):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = f"{kind}{place}", int(tensor)
        entries.append(entry)
    return entries
