# SPDX-License-Identifier: Apache-2.0
"""A graph as ONNX bytes: opset 18, IR version 8, the same bytes for the same graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgefl.errors import GraphError
from edgefl.graph.model import OPSET, Array, Attribute, Graph, Node, TensorType
from edgefl.graph.onnx_schema import (
    CODES,
    IR_VERSION,
    MAX_BYTES,
    AttributeField,
    AttributeKind,
    DimField,
    GraphField,
    ModelField,
    NodeField,
    OpsetField,
    ShapeField,
    TensorField,
    TensorTypeField,
    TypeField,
    ValueField,
)
from edgefl.graph.protobuf import put_bytes, put_float, put_floats, put_integer, put_integers


def write_onnx(graph: Graph) -> bytes:
    """ONNX bytes of a graph.

    Raises:
        GraphError: a dtype or an attribute ONNX cannot hold, or more bytes than a protobuf message may have.
    """
    opset = put_bytes(OpsetField.DOMAIN, "") + put_integer(OpsetField.VERSION, OPSET)
    data = b"".join(
        (
            put_integer(ModelField.IR_VERSION, IR_VERSION),
            put_bytes(ModelField.PRODUCER, "edgefl"),
            put_bytes(ModelField.GRAPH, _graph(graph)),
            put_bytes(ModelField.OPSET, opset),
        )
    )
    if len(data) > MAX_BYTES:
        raise GraphError(f"graph {graph.name!r} takes {len(data)} bytes, ONNX files hold at most {MAX_BYTES}")
    return data


def _graph(graph: Graph) -> bytes:
    declared = {*graph.inputs, *graph.outputs, *graph.constants}
    made = [name for node in graph for name in node.outputs if name not in declared and name in graph.types]
    return b"".join(
        (
            *(
                put_bytes(GraphField.NODE, _node(*pair))
                for pair in zip(graph, _node_names(graph), strict=True)
            ),
            put_bytes(GraphField.NAME, graph.name),
            *(
                put_bytes(GraphField.INITIALIZER, tensor(value, name))
                for name, value in graph.constants.items()
            ),
            *(put_bytes(GraphField.INPUT, _value(name, type)) for name, type in graph.inputs.items()),
            *(put_bytes(GraphField.OUTPUT, _value(name, type)) for name, type in graph.outputs.items()),
            *(put_bytes(GraphField.VALUE_INFO, _value(name, graph.types[name])) for name in made),
        )
    )


def _node_names(graph: Graph) -> list[str]:
    """Node names made distinct: several nodes may come from one, and some engines refuse that."""
    taken = {""}
    names = []
    for node in graph:
        name, count = node.label, 1
        while name in taken and node.label:
            count += 1
            name = f"{node.label}_{count}"
        taken.add(name)
        names.append(name)
    return names


def _node(node: Node, name: str) -> bytes:
    return b"".join(
        (
            *(put_bytes(NodeField.INPUT, name) for name in node.inputs),
            *(put_bytes(NodeField.OUTPUT, name) for name in node.outputs),
            put_bytes(NodeField.NAME, name),
            put_bytes(NodeField.OP, node.op),
            *(put_bytes(NodeField.ATTRIBUTE, field) for field in _attributes(node.attributes, str(node))),
        )
    )


def _attributes(attributes: Mapping[str, Attribute], where: str) -> list[bytes]:
    return [
        put_bytes(AttributeField.NAME, name) + _attribute(value, f"{where}, attribute {name!r}")
        for name, value in sorted(attributes.items())
    ]


def _attribute(value: Attribute, where: str) -> bytes:
    if isinstance(value, np.ndarray):
        return put_bytes(AttributeField.T, tensor(value)) + _kind(AttributeKind.TENSOR)
    if isinstance(value, str):
        return put_bytes(AttributeField.S, value) + _kind(AttributeKind.STRING)
    if isinstance(value, (int, np.integer)):
        return put_integer(AttributeField.I, int(value)) + _kind(AttributeKind.INT)
    if isinstance(value, (float, np.floating)):
        return put_float(AttributeField.F, float(value)) + _kind(AttributeKind.FLOAT)
    if isinstance(value, (tuple, list)):
        return _sequence(value, where)
    raise GraphError(f"{where} is a {type(value).__name__}; allowed are int, float, str, arrays and tuples")


def _sequence(values: tuple[Any, ...] | list[Any], where: str) -> bytes:
    if all(isinstance(v, (int, np.integer)) for v in values):
        return put_integers(AttributeField.INTS, map(int, values)) + _kind(AttributeKind.INTS)
    if all(isinstance(v, str) for v in values):
        return b"".join(put_bytes(AttributeField.STRINGS, v) for v in values) + _kind(AttributeKind.STRINGS)
    if all(isinstance(v, (int, float, np.integer, np.floating)) for v in values):
        return put_floats(AttributeField.FLOATS, map(float, values)) + _kind(AttributeKind.FLOATS)
    raise GraphError(f"{where} mixes element types; allowed are all int, all float or all str")


def _kind(kind: AttributeKind) -> bytes:
    return put_integer(AttributeField.TYPE, kind)


def tensor(value: Array, name: str = "") -> bytes:
    """TensorProto bytes of an array, as little-endian raw data."""
    return b"".join(
        (
            put_integers(TensorField.DIMS, value.shape),
            put_integer(TensorField.TYPE, _code(value.dtype, name)),
            put_bytes(TensorField.NAME, name) if name else b"",
            put_bytes(TensorField.RAW, value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()),
        )
    )


def _value(name: str, type: TensorType) -> bytes:
    dims = b"".join(put_bytes(ShapeField.DIM, put_integer(DimField.VALUE, n)) for n in type.shape)
    fields = put_integer(TensorTypeField.ELEMENT, _code(type.dtype, name)) + put_bytes(
        TensorTypeField.SHAPE, dims
    )
    return put_bytes(ValueField.NAME, name) + put_bytes(ValueField.TYPE, put_bytes(TypeField.TENSOR, fields))


def _code(dtype: np.dtype[Any], name: str) -> int:
    code = CODES.get(dtype.newbyteorder("="))
    if code is None:
        raise GraphError(f"tensor {name!r} has dtype {dtype}; allowed are {', '.join(map(str, CODES))}")
    return code
