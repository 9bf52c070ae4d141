# SPDX-License-Identifier: Apache-2.0
"""Numbers of the ONNX file format (onnx.proto) shared by reader and writer, and the limits of both."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

IR_VERSION = 8
MAX_IR_VERSION = 13
MAX_BYTES = (1 << 31) - 1  # protobuf's own limit for one message
MAX_RANK = 16
MAX_ELEMENTS = 1 << 31
MAX_NODES = 1 << 20
MAX_CONSTANT_BYTES = 1 << 31  # of all constants together, once decoded

DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
}
"""TensorProto.DataType to NumPy."""

CODES: dict[np.dtype[Any], int] = {dtype: code for code, dtype in DTYPES.items()}
"""NumPy to TensorProto.DataType."""


class ModelField(IntEnum):
    IR_VERSION, PRODUCER, GRAPH, OPSET, TRAINING, FUNCTIONS = 1, 2, 7, 8, 20, 25


class TrainingField(IntEnum):
    INITIALIZATION, ALGORITHM = 1, 2


class FunctionField(IntEnum):
    NODE, ATTRIBUTE = 7, 11


class OpsetField(IntEnum):
    DOMAIN, VERSION = 1, 2


class GraphField(IntEnum):
    NODE, NAME, INITIALIZER, INPUT, OUTPUT, VALUE_INFO, SPARSE = 1, 2, 5, 11, 12, 13, 15


class NodeField(IntEnum):
    INPUT, OUTPUT, NAME, OP, ATTRIBUTE, DOMAIN = 1, 2, 3, 4, 5, 7


class AttributeField(IntEnum):
    NAME, F, I, S, T, G, FLOATS, INTS, STRINGS = range(1, 10)  # noqa: E741
    TENSORS, GRAPHS, TYPE, REFERENCE, SPARSE, SPARSES = 10, 11, 20, 21, 22, 23


class AttributeKind(IntEnum):
    FLOAT, INT, STRING, TENSOR, GRAPH, FLOATS, INTS, STRINGS = 1, 2, 3, 4, 5, 6, 7, 8


class TensorField(IntEnum):
    DIMS, TYPE, SEGMENT, FLOATS, INT32S, STRINGS, INT64S, NAME, RAW, DOUBLES, UINT64S = range(1, 12)
    EXTERNAL, LOCATION = 13, 14


class SparseField(IntEnum):
    VALUES, INDICES = 1, 2


class ValueField(IntEnum):
    NAME, TYPE = 1, 2


class TypeField(IntEnum):
    TENSOR = 1


class TensorTypeField(IntEnum):
    ELEMENT, SHAPE = 1, 2


class ShapeField(IntEnum):
    DIM = 1


class DimField(IntEnum):
    VALUE, PARAM = 1, 2
