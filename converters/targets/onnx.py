# SPDX-License-Identifier: Apache-2.0
"""The ONNX target: the graph as it is, checked by onnx's own checker where that is installed."""

from __future__ import annotations

from dataclasses import replace

from edgefl.converters.targets.apart import apart
from edgefl.errors import ConversionError
from edgefl.graph import Graph, write_onnx


def to_onnx(graph: Graph) -> bytes:
    """The graph as an ONNX file; equal bytes for equal graphs.

    Raises:
        ConversionError: onnx's checker finds the file invalid.
    """
    data = write_onnx(_with_distinct_names(_ends_last(apart(graph))))
    try:
        import onnx
    except ImportError:
        return data
    try:
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    except Exception as exc:
        raise ConversionError(f"graph {graph.name!r} does not pass onnx.checker: {exc}") from exc
    return data


def _ends_last(graph: Graph) -> Graph:
    """The graph with nodes that no other reads at its end, the latest of them first.

    onnxruntime takes such nodes from the end of the file and computes what each needs before it looks at the
    next: so a step's last layer gets its gradients first, and frees its activations, where it would otherwise
    go all the way back to the first layer with everything still in memory.
    """
    read = {name for node in graph for name in node.inputs}
    ends = [node for node in graph if read.isdisjoint(node.outputs)]
    rest = [node for node in graph if not read.isdisjoint(node.outputs)]
    return replace(graph, nodes=(*rest, *reversed(ends)))


def _with_distinct_names(graph: Graph) -> Graph:
    """Nodes made from one node of the source model share its name; onnxruntime refuses that."""
    counts: dict[str, int] = {}
    nodes = []
    for node in graph:
        name = base = node.label or node.outputs[0]
        while name in counts:
            counts[base] += 1
            name = f"{base}/{counts[base]}"
        counts[name] = 1
        nodes.append(replace(node, name=name))
    return replace(graph, nodes=tuple(nodes))
