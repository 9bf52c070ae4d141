# SPDX-License-Identifier: Apache-2.0
"""Files in which TFLite's memory planner finds nothing to write over too early.

An input that something else reads is never written over. So where `overwrites` accuses an operator, another
view of the same memory is made from this input, which costs nothing; where there is none, the operator gets
a copy of the input.
"""

from __future__ import annotations

import math
from typing import Any

from edgefl.converters.targets.flatbuffer_edit import Editor
from edgefl.converters.targets.overwrites import VIEWS, Overwrite, overwrites

_MAX_AXES = 4  # of SLICE in every release
_VERSIONS = {"INT8": 2, "INT16": 4}  # of SLICE, by type


def untangle(model: Any) -> int:
    """Change a model (TFLite's object tree, one subgraph) in place until no operator is accused.

    Returns:
        The number of operators changed.
    """
    changed = 0
    while found := overwrites(model):
        if not _share(model, found[0], len(found)):
            _copy(Editor(model), found[0])
        changed += 1
    return changed


def _share(model: Any, found: Overwrite, count: int) -> bool:
    """Make the reader, if it is a RESHAPE, a view of the writer's input; False where that does not help."""
    editor = Editor(model)
    reader, views = editor.operators[found.reader], editor.codes(*VIEWS)
    makers = {int(one.outputs[0]): at for at, one in enumerate(editor.operators) if one.opcodeIndex in views}
    possible = (
        reader.opcodeIndex in editor.codes("RESHAPE")
        and makers.get(found.over, found.reader) < found.reader
        and found.shared in _chain(editor, makers, found.over) & _chain(editor, makers, found.read)
        and editor.kind(found.over) == editor.kind(found.read)
    )
    if not possible:
        return False
    inputs = [int(tensor) for tensor in reader.inputs]
    reader.inputs = [found.over, *inputs[1:]]
    if len(overwrites(model)) < count:
        return True
    reader.inputs = inputs
    return False


def _chain(editor: Editor, makers: dict[int, int], tensor: int) -> set[int]:
    """A tensor and those it is a view of."""
    found = {tensor}
    while tensor in makers:
        tensor = int(editor.operators[makers[tensor]].inputs[0])
        found.add(tensor)
    return found


def _copy(editor: Editor, found: Overwrite) -> None:
    """Let the writer take a copy of its input, which it then may write over."""
    shape = editor.shape(found.over)
    flat = shape if len(shape) <= _MAX_AXES else (math.prod(shape),)
    kind = editor.kind(found.over)
    steps = [(editor.whole(flat, _VERSIONS.get(kind, 1)), flat)]
    if flat != shape:
        steps = [(editor.reshape(flat), flat), *steps, (editor.reshape(shape), shape)]
    current = found.over
    for operator, given in steps:
        operator.inputs = [current, *operator.inputs]
        current = editor.like(found.over, given)
        operator.outputs = [current]
    writer = editor.operators[found.writer]
    writer.inputs = [current if int(tensor) == found.over else int(tensor) for tensor in writer.inputs]
    editor.operators[found.writer : found.writer] = [operator for operator, _ in steps]
