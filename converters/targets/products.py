# SPDX-License-Identifier: Apache-2.0
"""Products with weights that are known only at run time, as the operator XNNPACK takes.

XNNPACK's FULLY_CONNECTED wants constant weights; with others TFLite's own kernel runs, at a third of the
speed. TensorFlow's converter makes one of every product with a transposed right side. BATCH_MATMUL says the
same, and XNNPACK takes it whatever its operands are.
"""

from __future__ import annotations

import itertools
from typing import Any

from edgefl.converters.targets.flatbuffer_edit import Editor

_ACTIVATIONS = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}  # by the schema's ActivationFunctionType


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
