# SPDX-License-Identifier: Apache-2.0
"""Where TensorFlow's gradient is not that of the operations: stops are kept, custom gradients refused.

tf2onnx would drop both without a word; see `stopping_torch` for the counterpart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgefl.converters.sources.onnx_model import STOP_DOMAIN, STOP_OPERATOR
from edgefl.errors import SourceError


def keeping_stops(handlers: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of tf2onnx's converters that turn `tf.stop_gradient` into `edgefl.StopGradient`.

    Args:
        handlers: further ones, by operator.
    """
    from onnx import helper

    def keep(context: Any, node: Any, name: str, arguments: Any) -> Any:
        node.type, node.domain = STOP_OPERATOR, STOP_DOMAIN
        return node

    return {
        "custom_op_handlers": {"StopGradient": (keep, []), **handlers},
        "extra_opset": [helper.make_opsetid(STOP_DOMAIN, 1)],
    }


def refuse_own_gradients(graph: Any, layer_of: Callable[[str], str]) -> None:
    """Raise SourceError for a function with `tf.custom_gradient`, TensorFlow's own SiLU aside.

    `layer_of` gives the layer of an operation's name.

    The gradient that TensorFlow gives SiLU, to save memory, is that of its operations.
    """
    for operation in graph.get_operations():
        own = operation.type == "IdentityN" and "_gradient_op_type" in operation.node_def.attr
        if own and not _is_silu(operation.inputs[0].op):
            where = f" in layer {layer}" if (layer := layer_of(operation.name)) else ""
            raise SourceError(
                f"operation {operation.name!r}{where} has a gradient of its own (custom_gradient), which "
                "cannot be exported; write it with differentiable operations"
            )


def _is_silu(operation: Any) -> bool:
    makers = {tensor.op.type for tensor in operation.inputs}
    return operation.type == "Mul" and "Sigmoid" in makers
