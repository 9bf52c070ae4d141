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

from edgefl.converters.targets.flatbuffer_edit import Editor

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
        self._editor = Editor(model)
        self._graph, self.operators = self._editor.graph, self._editor.operators
        self._codes = self._editor.codes(*_VIEWS)

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
        operator = self._editor.reshape(tuple(int(n) for n in made.shape))
        operator.inputs = [source, *operator.inputs]
        operator.outputs = [self._editor.add(made)]
        self._codes.add(operator.opcodeIndex)
        return operator
