# SPDX-License-Identifier: Apache-2.0
"""Types and constant values of a MIL program as NumPy arrays and strings."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import MalformedFile, TooLarge, Unsupported
from tests.coreml_evaluator.protos import messages

MAX_ELEMENTS = 1 << 28
DTYPES = {
    "BOOL": "bool", "FLOAT16": "float16", "FLOAT32": "float32", "FLOAT64": "float64", "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64":
    "uint64",
    "INT4": "int8", "UINT4": "uint8", "UINT1": "uint8", "UINT2": "uint8", "UINT3": "uint8", "UINT6": "uint8",
}  # fmt: skip
_AS_BYTES = ("FLOAT16", "INT8", "UINT8", "UINT32", "INT16", "UINT16")
ReadBlob = Callable[[str, int, str, int], Array]


@dataclass(frozen=True)
class Type:
    """A tensor type.

    Attributes:
        name: the format's name of the data type, such as FLOAT16 or STRING.
        shape: sizes, None where the file leaves one open.
    """

    name: str
    shape: tuple[int | None, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        if self.name not in DTYPES:
            raise Unsupported(f"data type {self.name}")
        return np.dtype(DTYPES[self.name])

    @property
    def size(self) -> int:
        """The number of elements; raises TooLarge over the limit."""
        size = math.prod(1 if n is None else n for n in self.shape)
        if size > MAX_ELEMENTS:
            raise TooLarge(f"a tensor of shape {self.shape} has {size} elements, allowed {MAX_ELEMENTS}")
        return size

    def fits(self, array: Array) -> bool:
        same = len(self.shape) == array.ndim and all(
            a is None or a == b for a, b in zip(self.shape, array.shape, strict=True)
        )
        return same and array.dtype == self.dtype


def tensor_type(value_type: Any, where: str) -> Type:
    """The tensor type of a ValueType message, states unwrapped; raises Unsupported for others."""
    kind = value_type.WhichOneof("type")
    if kind == "stateType":
        return tensor_type(value_type.stateType.wrappedType, where)
    if kind != "tensorType":
        raise Unsupported(f"{where}: a value of {kind}")
    tensor = value_type.tensorType
    if len(tensor.dimensions) != tensor.rank:
        raise MalformedFile(f"{where}: rank {tensor.rank}, but {len(tensor.dimensions)} dimensions")
    shape = tuple(
        d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions
    )
    return Type(messages("MIL_pb2").DataType.Name(tensor.dataType), shape)


def constant(value: Any, read_blob: ReadBlob, where: str) -> Array | str:
    """A Value message's content: a string, or an array of the declared type and shape."""
    if value.WhichOneof("value") not in ("immediateValue", "blobFileValue"):
        raise MalformedFile(f"{where}: a value without content")
    declared = tensor_type(value.type, where)
    if any(n is None for n in declared.shape):
        raise MalformedFile(f"{where}: a constant of shape {declared.shape}")
    count = declared.size
    if value.WhichOneof("value") == "blobFileValue":
        flat = read_blob(value.blobFileValue.fileName, value.blobFileValue.offset, declared.name, count)
    else:
        flat = _immediate(value.immediateValue, declared, where)
        if isinstance(flat, str):
            return flat
    if flat.size != count:
        raise MalformedFile(f"{where}: {flat.size} values for shape {declared.shape}")
    return flat.astype(declared.dtype, copy=False).reshape([n or 0 for n in declared.shape])


def _immediate(value: Any, declared: Type, where: str) -> Array | str:
    if value.WhichOneof("value") != "tensor":
        raise Unsupported(f"{where}: a constant {value.WhichOneof('value')}")
    tensor = value.tensor
    kind = tensor.WhichOneof("value")
    if declared.name == "STRING":
        if kind != "strings" or len(tensor.strings.values) != 1:
            raise Unsupported(f"{where}: a string tensor that is not one string")
        return str(tensor.strings.values[0])
    if declared.name in _AS_BYTES:
        if kind != "bytes":
            raise MalformedFile(f"{where}: {declared.name} as {kind}, expected bytes")
        if len(tensor.bytes.values) != declared.size * declared.dtype.itemsize:
            raise MalformedFile(f"{where}: {len(tensor.bytes.values)} bytes for {declared}")
        return np.frombuffer(tensor.bytes.values, declared.dtype.newbyteorder("<"))
    if kind is None:
        return np.zeros(0, declared.dtype)
    return np.array(getattr(tensor, kind).values, declared.dtype)
