# SPDX-License-Identifier: Apache-2.0
"""Products of what is known only at run time, as the operator XNNPACK takes, in the form it is fastest at.

XNNPACK's FULLY_CONNECTED wants constant weights; with others TFLite's own kernel runs, at a third of the
speed. TensorFlow's converter makes one of every product with a transposed right side. BATCH_MATMUL says the
same, and XNNPACK takes it whatever its operands are.
"""

from __future__ import annotations

import collections
import itertools
import math
from typing import Any

from edgefl.converters.targets.flatbuffer_edit import Editor

_ACTIVATIONS = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}  # by the schema's ActivationFunctionType
_FEW_ROWS = 64


def unbind(model: Any) -> int:
    """Change a model (TFLite's object tree, one subgraph) in place; the number of operators replaced."""
    editor = Editor(model)
    dense = editor.codes("FULLY_CONNECTED")
    made: list[Any] = []
    changed = 0
    for operator in editor.operators:
        if operator.opcodeIndex in dense and _replaceable(editor, operator):
            made += _product(editor, operator)
            changed += 1
        else:
            made.append(operator)
    editor.operators[:] = made
    return changed


def _replaceable(editor: Editor, operator: Any) -> bool:
    """Whether it is a product of two float tensors, the right one not constant, without a bias."""
    left, right, *bias = (int(tensor) for tensor in operator.inputs)
    known = operator.builtinOptions.fusedActivationFunction in (0, *_ACTIVATIONS)
    floats = editor.is_float(left) and editor.is_float(right)
    return known and floats and not editor.is_constant(right) and all(tensor < 0 for tensor in bias)


def _product(editor: Editor, operator: Any) -> list[Any]:
    """BATCH_MATMUL, then what FULLY_CONNECTED does with the product: an activation, another shape."""
    left, right = (int(tensor) for tensor in operator.inputs[:2])
    (output,) = (int(tensor) for tensor in operator.outputs)
    shape = (*editor.shape(left)[:-1], editor.shape(right)[0])
    product = editor.batch_matmul(transpose_right=True)
    product.inputs = [left, right]
    chain = [product]
    if operator.builtinOptions.fusedActivationFunction:
        chain.append(editor.unary(_ACTIVATIONS[operator.builtinOptions.fusedActivationFunction]))
    if editor.shape(output) != shape:
        chain.append(editor.reshape(editor.shape(output)))
    for before, after in itertools.pairwise(chain):
        before.outputs = [editor.tensor("product", shape, "FLOAT32")]
        after.inputs = [*before.outputs, *after.inputs]
    chain[-1].outputs = [output]
    return chain


def flatten(model: Any) -> int:
    """Make one product of those with one matrix on the right and few rows each on the left, in place.

    TensorFlow's converter takes reshapes into the product behind them, which XNNPACK then computes row by row
    of an image. Gives the number of operators changed.
    """
    editor = Editor(model)
    products, reshapes = editor.codes("BATCH_MATMUL"), editor.codes("RESHAPE")
    readers = collections.Counter(int(tensor) for operator in editor.operators for tensor in operator.inputs)
    readers.update(int(tensor) for tensor in editor.graph.outputs)
    makers = {int(one.outputs[0]): one for one in editor.operators if one.opcodeIndex in reshapes}
    made: list[Any] = []
    changed = 0
    for operator in editor.operators:
        if operator.opcodeIndex not in products or not _is_parted(editor, operator):
            made.append(operator)
            continue
        left = int(operator.inputs[0])
        source = makers.get(left)
        if source is not None and readers[left] == 1:
            made.remove(source)
            left = int(source.inputs[0])
        made += _flat(editor, operator, left)
        changed += 1
    editor.operators[:] = made
    return changed


def _is_parted(editor: Editor, operator: Any) -> bool:
    left, right = (editor.shape(int(tensor)) for tensor in operator.inputs)
    one = not operator.builtinOptions.adjX and len(right) == 2 and editor.is_float(int(operator.inputs[1]))
    return one and math.prod(left[:-2]) > 1 and left[-2] < _FEW_ROWS


def _flat(editor: Editor, operator: Any, left: int) -> list[Any]:
    """The product of the left side's rows, all in one matrix, and the result in its shape."""
    (output,) = (int(tensor) for tensor in operator.outputs)
    *rows, columns = editor.shape(output)
    matrix = math.prod(rows), editor.shape(int(operator.inputs[0]))[-1]
    after = editor.reshape((*rows, columns))
    chain = [operator, after]
    operator.inputs = [left, int(operator.inputs[1])]
    operator.outputs = [editor.tensor("product", (matrix[0], columns), "FLOAT32")]
    after.inputs, after.outputs = [*operator.outputs, *after.inputs], [output]
    if editor.shape(left) == matrix:
        return chain
    before = editor.reshape(matrix)
    before.inputs = [left, *before.inputs]
    before.outputs = [editor.tensor("rows", matrix, "FLOAT32")]
    operator.inputs[0] = before.outputs[0]
    return [before, *chain]
