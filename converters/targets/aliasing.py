# SPDX-License-Identifier: Apache-2.0
"""Views of one memory, made safe from a mistake in TFLite's memory planner.

RESHAPE and its like give their output the input's memory. The planner lets an elementwise operator write over
an input that nothing else reads, and counts the readers of that tensor alone: where it is one of several
views of the same memory, the others read garbage (LiteRT 2.3 and tflite-runtime 2.14, wherever XNNPACK does
not take the operators). So each view but the one read last gets a second reader: a later reader of the
memory reads that view.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def untangle(model: Any) -> int:
    """Change a model (TFLite's object tree, one subgraph) in place; the number of readers redirected."""
    for operator in model.subgraphs[0].operators:
        operator.inputs = [int(tensor) for tensor in operator.inputs]
    views = _Views(model)
    changed = place = 0
    while place < len(views.operators):
        operator = views.operators[place]
        if views.holds(operator):
            changed += views.give_second_reader(int(operator.outputs[0]))
        place += 1
    return changed


class _Views:
    """A model's operators, and which of them only give memory another shape."""

    def __init__(self, model: Any) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self._schema = schema
        self._model, self._graph = model, model.subgraphs[0]
        self.operators: list[Any] = self._graph.operators
        wanted = {getattr(schema.BuiltinOperator, name) for name in _VIEWS}
        codes = enumerate(model.operatorCodes)
        self._codes = {i for i, c in codes if max(c.builtinCode, c.deprecatedBuiltinCode) in wanted}

    def holds(self, operator: Any) -> bool:
        return operator.opcodeIndex in self._codes

    def give_second_reader(self, view: int) -> int:
        """Let a later reader of a view's memory read the view, if it has one reader, which may write."""
        readers = [index for index, one in enumerate(self.operators) if view in one.inputs]
        if len(readers) != 1 or view in self._graph.outputs or self.holds(self.operators[readers[0]]):
            return 0
        family = self._family(view)
        for index in range(readers[0] + 1, len(self.operators)):
            shared = next((tensor for tensor in self.operators[index].inputs if tensor in family), None)
            if shared is not None:
                self._redirect(index, shared, view)
                return 1
        given = [int(tensor) for tensor in self._graph.outputs if int(tensor) in family]
        if given:
            self._append_output(given[0], view)
        return len(given[:1])

    def _family(self, view: int) -> set[int]:
        """All tensors in the view's memory."""
        sources = {int(one.outputs[0]): one.inputs[0] for one in self.operators if self.holds(one)}

        def root(tensor: int) -> int:
            while tensor in sources:
                tensor = sources[tensor]
            return tensor

        own = root(view)
        return {own, *(tensor for tensor in sources if root(tensor) == own)}

    def _redirect(self, index: int, tensor: int, view: int) -> None:
        """Make an operator that reads one name of the memory read it through the view."""
        operator = self.operators[index]
        if not self.holds(operator):
            back = self._reshape(view, tensor)
            self.operators.insert(index, back)
            view = back.outputs[0]
        operator.inputs = [view if one == tensor else one for one in operator.inputs]

    def _append_output(self, tensor: int, view: int) -> None:
        """Make the view, shaped back, the output in place of another name of its memory."""
        back = self._reshape(view, tensor)
        self.operators.append(back)
        outputs = [back.outputs[0] if int(one) == tensor else int(one) for one in self._graph.outputs]
        self._graph.outputs = np.array(outputs, np.int32)

    def _reshape(self, source: int, like: int) -> Any:
        """An operator that gives the source the shape and type of another tensor, as a new one."""
        made = copy.copy(self._graph.tensors[like])
        made.buffer = 0
        shape = np.array(made.shape, np.int32)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._reshape_code()
        operator.inputs = [source, self._constant(shape)]
        operator.outputs = [self._add(made)]
        operator.builtinOptionsType = self._schema.BuiltinOptions.ReshapeOptions
        operator.builtinOptions = self._schema.ReshapeOptionsT()
        operator.builtinOptions.newShape = shape
        return operator

    def _constant(self, value: Any) -> int:
        buffer, tensor = self._schema.BufferT(), self._schema.TensorT()
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor.name, tensor.shape = b"shape", np.array(value.shape, np.int32)
        tensor.type, tensor.buffer = self._schema.TensorType.INT32, len(self._model.buffers) - 1
        return self._add(tensor)

    def _add(self, tensor: Any) -> int:
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _reshape_code(self) -> int:
        builtin = self._schema.BuiltinOperator.RESHAPE
        for index, code in enumerate(self._model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                return index
        code = self._schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = 1
        self._model.operatorCodes.append(code)
        self._codes.add(len(self._model.operatorCodes) - 1)
        return len(self._model.operatorCodes) - 1
