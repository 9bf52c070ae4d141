# SPDX-License-Identifier: Apache-2.0
"""Adding tensors and operators to a TFLite model: the object tree that its schema's generated code reads."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edgefl.graph import Array


class Editor:
    """A model with one subgraph; what is added takes part once it is placed among `operators`."""

    def __init__(self, model: Any) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self._schema, self._model = schema, model
        self.graph = model.subgraphs[0]
        self.operators: list[Any] = self.graph.operators

    def codes(self, *names: str) -> set[int]:
        """Where the operators of these names stand among the model's operator codes."""
        wanted = {getattr(self._schema.BuiltinOperator, name) for name in names}
        codes = enumerate(self._model.operatorCodes)
        return {place for place, c in codes if max(c.builtinCode, c.deprecatedBuiltinCode) in wanted}

    def tensor(self, name: str, shape: tuple[int, ...], kind: str, data: Array | None = None) -> int:
        """A new tensor's index; `kind` is a name of the schema's TensorType."""
        made = self._schema.TensorT()
        made.name, made.shape = name.encode(), np.array(shape, np.int32)
        made.type = getattr(self._schema.TensorType, kind)
        if data is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            made.buffer = len(self._model.buffers) - 1
        return self.add(made)

    def add(self, tensor: Any) -> int:
        """Append a tensor of the schema; its index."""
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def like(self, tensor: int, shape: tuple[int, ...]) -> int:
        """A new tensor of another's type and scales; its index."""
        made = copy.copy(self.graph.tensors[tensor])
        made.shape, made.buffer, made.name = np.array(shape, np.int32), 0, b""
        return self.add(made)

    def kind(self, tensor: int) -> str:
        """A tensor's type by the schema's name."""
        types = vars(self._schema.TensorType).items()
        return str(next(name for name, code in types if code == self.graph.tensors[tensor].type))

    def shape(self, tensor: int) -> tuple[int, ...]:
        held = self.graph.tensors[tensor].shape
        return () if held is None else tuple(int(n) for n in held)

    def is_float(self, tensor: int) -> bool:
        """Whether a tensor holds float32."""
        return bool(self.graph.tensors[tensor].type == self._schema.TensorType.FLOAT32)

    def is_int8(self, tensor: int) -> bool:
        return bool(self.graph.tensors[tensor].type == self._schema.TensorType.INT8)

    def is_constant(self, tensor: int) -> bool:
        data = self._model.buffers[self.graph.tensors[tensor].buffer].data
        return data is not None and len(data) > 0

    def quantize(self, tensor: int, scale: Array, axis: int, zero_point: int = 0) -> None:
        """Give a tensor one scale per index of an axis, symmetric unless zero is elsewhere."""
        made = self._schema.QuantizationParametersT()
        made.scale = scale
        made.zeroPoint = np.full(len(scale), zero_point, np.int64)
        made.quantizedDimension = axis
        self.graph.tensors[tensor].quantization = made

    def dequantize(self, version: int) -> Any:
        operator = self._operator("DEQUANTIZE", version, "DequantizeOptions")
        operator.inputs = []
        return operator

    def reshape(self, shape: tuple[int, ...]) -> Any:
        """The operator without its tensors but for the shape, which comes second."""
        target = np.array(shape, np.int32)
        operator = self._operator("RESHAPE", 1, "ReshapeOptions")
        operator.builtinOptions.newShape = target
        operator.inputs = [self.tensor("shape", target.shape, "INT32", target)]
        return operator

    def batch_matmul(self, *, transpose_right: bool) -> Any:
        """The operator without its tensors."""
        operator = self._operator("BATCH_MATMUL", 1, "BatchMatMulOptions")
        operator.builtinOptions.adjY = transpose_right
        return operator

    def unary(self, name: str, version: int = 1) -> Any:
        """An operator without options, without its tensors."""
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(name, version)
        operator.inputs = []
        return operator

    def whole(self, shape: tuple[int, ...], version: int) -> Any:
        """A SLICE of everything without its tensors but for where it begins and its size: a copy."""
        axes = len(shape)
        operator = self._operator("SLICE", version, "SliceOptions")
        bounds = np.zeros(axes, np.int32), np.array(shape, np.int32)
        operator.inputs = [self.tensor("bound", (axes,), "INT32", bound) for bound in bounds]
        return operator

    def transpose(self, perm: tuple[int, ...]) -> Any:
        """The operator without its tensors but for the order of axes, which comes second."""
        axes = np.array(perm, np.int32)
        operator = self._operator("TRANSPOSE", 1, "TransposeOptions")
        operator.inputs = [self.tensor("perm", axes.shape, "INT32", axes)]
        return operator

    def _operator(self, name: str, version: int, options: str) -> Any:
        operator = self.unary(name, version)
        operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
        operator.builtinOptions = getattr(self._schema, f"{options}T")()
        return operator

    def _code(self, name: str, version: int) -> int:
        builtin = getattr(self._schema.BuiltinOperator, name)
        for place in sorted(self.codes(name)):
            if self._model.operatorCodes[place].version == version:
                return place
        code = self._schema.OperatorCodeT()
        code.builtinCode = builtin
        code.deprecatedBuiltinCode = min(builtin, 127)
        code.version = version
        self._model.operatorCodes.append(code)
        return len(self._model.operatorCodes) - 1
