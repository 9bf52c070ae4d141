# SPDX-License-Identifier: Apache-2.0
"""Tensors and attributes of an ONNX file as NumPy arrays and plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edgefl.errors import GraphError
from edgefl.graph.model import Array, Attribute
from edgefl.graph.onnx_schema import (
    DTYPES,
    MAX_ELEMENTS,
    MAX_RANK,
    AttributeField,
    AttributeKind,
    TensorField,
)
from edgefl.graph.protobuf import Message

_TYPED = (
    TensorField.FLOATS,
    TensorField.INT32S,
    TensorField.STRINGS,
    TensorField.INT64S,
    TensorField.DOUBLES,
    TensorField.UINT64S,
)
_FIELD = {"float32": TensorField.FLOATS, "float64": TensorField.DOUBLES, "int64": TensorField.INT64S}
_FIELD |= {"uint32": TensorField.UINT64S, "uint64": TensorField.UINT64S}


def check_shape(shape: list[int], where: str) -> None:
    """Raise GraphError for negative dimensions or more elements or dimensions than a graph may have."""
    if len(shape) > MAX_RANK or min(shape, default=0) < 0 or math.prod(n for n in shape if n) > MAX_ELEMENTS:
        raise GraphError(
            f"{where} has shape {shape}; allowed are at most {MAX_RANK} dimensions, none negative, "
            f"and {MAX_ELEMENTS} elements"
        )


def read_tensor(message: Message) -> Array:
    """The array of a TensorProto, read-only.

    Raises:
        GraphError: external, segmented or string data, an unknown element type, or data that does not fill
            the declared shape exactly.
    """
    message.where = where = f"{message.where} {message.text(TensorField.NAME)!r}"
    if TensorField.EXTERNAL in message or message.integer(TensorField.LOCATION):
        raise GraphError(f"{where} keeps its data in another file; save the model as a single file")
    code = message.integer(TensorField.TYPE)
    if code not in DTYPES or TensorField.SEGMENT in message:
        raise GraphError(
            f"{where} has element type {code} or is segmented; allowed are types {sorted(DTYPES)}"
        )
    shape = message.integers(TensorField.DIMS).tolist()
    check_shape(shape, where)
    values = _raw(message, DTYPES[code]) if TensorField.RAW in message else _typed(message, DTYPES[code])
    if values.size != math.prod(shape):
        raise GraphError(f"{where} has {values.size} elements of data for shape {shape}")
    values = values.reshape(shape)
    values.flags.writeable = False
    return values


def _raw(message: Message, dtype: np.dtype[np.generic]) -> Array:
    if any(number in message for number in _TYPED):
        raise GraphError(f"{message.where} has its data twice")
    data = message.bytes(TensorField.RAW)
    if len(data) % dtype.itemsize:
        raise GraphError(f"{message.where} has {len(data)} bytes of data, no multiple of {dtype.itemsize}")
    if dtype == np.bool_:
        return np.asarray(np.frombuffer(data, np.uint8) != 0)
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype)


def _typed(message: Message, dtype: np.dtype[np.generic]) -> Array:
    number = _FIELD.get(dtype.name, TensorField.INT32S)
    if any(other in message for other in _TYPED if other != number):
        raise GraphError(f"{message.where} has data in a field that is not for {dtype}")
    if number == TensorField.FLOATS:
        return message.floats(number)
    if number == TensorField.DOUBLES:
        return message.floats(number, "<f8")
    return _narrow(message, message.integers(number), dtype)


def _narrow(message: Message, values: Array, dtype: np.dtype[np.generic]) -> Array:
    if dtype == np.float16:
        return _narrow(message, values, np.dtype(np.uint16)).view(np.float16)
    if dtype == np.uint64:
        return values.view(np.uint64)
    narrow = values.astype(dtype)
    if not np.array_equal(narrow.astype(np.int64), values):
        raise GraphError(f"{message.where} has a value that does not fit {dtype}")
    return narrow


_READ: Mapping[int, Callable[[Message], Attribute]] = {
    AttributeKind.FLOAT: lambda m: _one_float(m),
    AttributeKind.INT: lambda m: m.integer(AttributeField.I),
    AttributeKind.STRING: lambda m: m.text(AttributeField.S),
    AttributeKind.TENSOR: lambda m: read_tensor(m.message(AttributeField.T)),
    AttributeKind.FLOATS: lambda m: tuple(m.floats(AttributeField.FLOATS).tolist()),
    AttributeKind.INTS: lambda m: tuple(m.integers(AttributeField.INTS).tolist()),
    AttributeKind.STRINGS: lambda m: tuple(m.texts(AttributeField.STRINGS)),
}


def read_attribute(message: Message) -> tuple[str, Attribute]:
    """Name and value of an AttributeProto; raises GraphError for subgraphs, references and other kinds."""
    name, kind = message.text(AttributeField.NAME), message.integer(AttributeField.TYPE)
    message.where = f"{message.where} {name!r}"
    if kind not in _READ or AttributeField.REFERENCE in message:
        what = (
            "a subgraph (control flow)" if kind == AttributeKind.GRAPH else f"of kind {kind} or a reference"
        )
        raise GraphError(f"{message.where} is {what}; allowed are kinds {sorted(map(int, _READ))}")
    return name, _READ[kind](message)


def _one_float(message: Message) -> float:
    values = message.floats(AttributeField.F)
    if values.size > 1:
        raise GraphError(f"{message.where} has {values.size} values, one is allowed")
    return float(values[0]) if values.size else 0.0


def read_constant(attributes: Mapping[str, Attribute], where: str) -> Array:
    """The value of a Constant node; raises GraphError for strings and sparse values."""
    dtypes = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    if len(attributes) == 1:
        [(name, value)] = attributes.items()
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in dtypes and not isinstance(value, (str, np.ndarray)):
            return np.asarray(value, dtypes[name])
    raise GraphError(f"{where} must have one of value, {', '.join(dtypes)}; given {sorted(attributes)}")


def read_filled(shape: Array, attributes: Mapping[str, Attribute], where: str) -> Array:
    """The value of a ConstantOfShape node, occupying one element; raises GraphError for what is no shape."""
    value = attributes.get("value", np.zeros(1, np.float32))
    if not isinstance(value, np.ndarray) or value.size != 1 or shape.ndim != 1 or shape.dtype != np.int64:
        raise GraphError(
            f"{where} needs one value and a shape of int64, given {shape.dtype}{list(shape.shape)}"
        )
    check_shape(shape.tolist(), where)
    return np.broadcast_to(value.reshape(()), tuple(shape.tolist()))
