# SPDX-License-Identifier: Apache-2.0
"""The ONNX target: the graph as it is, checked by onnx's own checker where that is installed."""

from __future__ import annotations

from edgefl.errors import ConversionError
from edgefl.graph import Graph, write_onnx


def to_onnx(graph: Graph) -> bytes:
    """The graph as an ONNX file; equal bytes for equal graphs.

    Raises:
        ConversionError: onnx's checker finds the file invalid.
    """
    data = write_onnx(graph)
    try:
        import onnx
    except ImportError:
        return data
    try:
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    except Exception as exc:
        raise ConversionError(f"graph {graph.name!r} does not pass onnx.checker: {exc}") from exc
    return data
