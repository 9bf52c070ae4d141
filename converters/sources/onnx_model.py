# SPDX-License-Identifier: Apache-2.0
"""An exporter's ONNX model as a graph of opset 18."""

from __future__ import annotations

from typing import Any

from edgefl.converters.builder import STOP_GRADIENT
from edgefl.converters.instead import instead_of
from edgefl.errors import EdgeflError, SourceError, UnsupportedOperator
from edgefl.graph import OPSET, Graph, Node, read_onnx

_STANDARD = ("", "ai.onnx")
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
STOP_DOMAIN, STOP_OPERATOR, DROPOUT_OPERATOR = "edgefl", "StopGradient", "Dropout"
_EXTRA_OPERATORS = frozenset({"Erfc"})  # no ONNX operators, but `normalize` rewrites them


def to_graph(model: Any) -> Graph:
    """The graph of an `onnx.ModelProto`: functions inlined, opset converted to 18, operators checked.

    Raises:
        UnsupportedOperator: control flow, or an operator that is no standard ONNX operator.
        SourceError: it cannot be converted to opset 18 or read.
    """
    model = inlined(model)
    _mark_stops(model)
    check_operators(model)
    try:
        model = converted(model)
        return read_onnx(model.SerializeToString())
    except EdgeflError as exc:
        raise SourceError(f"the exported ONNX model cannot be read: {exc}") from exc


def _mark_stops(model: Any) -> None:
    """Where the source said that no gradient passes: an Identity that says so by its name."""
    for node in model.graph.node:
        if (node.domain, node.op_type) == (STOP_DOMAIN, STOP_OPERATOR):
            node.domain, node.op_type, node.name = "", "Identity", f"{STOP_GRADIENT}/{node.name}"
        elif (node.domain, node.op_type) == (STOP_DOMAIN, DROPOUT_OPERATOR):
            node.domain = ""  # with attributes of our own: rate and shape of the mask
    own = [entry for entry in model.opset_import if entry.domain == STOP_DOMAIN]
    for entry in own:
        model.opset_import.remove(entry)


def converted(model: Any) -> Any:
    """The model in opset 18."""
    from onnx import version_converter

    version = next((o.version for o in model.opset_import if o.domain in _STANDARD), 0)
    if version == OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as exc:
        raise SourceError(
            f"ONNX opset {version} cannot be converted to {OPSET}: {exc}; export the model with opset {OPSET}"
        ) from exc


def inlined(model: Any) -> Any:
    """The model with local functions written out where they are called."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def check_operators(model: Any) -> None:
    """Raise UnsupportedOperator for control flow and for what is no standard operator."""
    from onnx import defs

    newest = defs.onnx_opset_version()
    for node in model.graph.node:
        where = f"node {Node(node.op_type, (), tuple(node.output), {}, node.name)}"
        if node.op_type in _CONTROL_FLOW:
            raise UnsupportedOperator(
                f"{where}: control flow cannot become a training step; {instead_of(node.op_type)}"
            )
        standard = node.domain in _STANDARD
        if not standard or not (defs.has(node.op_type, newest) or node.op_type in _EXTRA_OPERATORS):
            domain = "" if standard else f" of the domain {node.domain!r}"
            raise UnsupportedOperator(
                f"{where}{domain} is no standard ONNX operator; {instead_of(node.op_type)}"
            )
