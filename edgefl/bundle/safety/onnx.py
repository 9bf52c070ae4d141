# SPDX-License-Identifier: Apache-2.0
"""ONNX files: no tensor elsewhere, no operator of an unknown domain, however deep it is nested.

The walk follows onnx.proto wherever a tensor or a node can stand: initializers, sparse ones, attributes,
subgraphs, training information and functions. Tensors' contents are not looked at.
"""

from __future__ import annotations

from edgefl.errors import BundleUnsafe
from edgefl.graph.onnx_schema import AttributeField, GraphField, ModelField, NodeField, TensorField
from edgefl.graph.protobuf import Message

MAX_DEPTH = 16
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft")
"""Operators of standard and of onnxruntime itself."""
READS_FILES = ("EPContext",)
"""Operators of these domains that name a file."""

_MODEL_GRAPH, _TRAINING, _FUNCTIONS = ModelField.GRAPH, ModelField.TRAINING, ModelField.FUNCTIONS
_TRAINING_GRAPHS = (1, 2)
_SPARSE_PARTS = (1, 2)
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 7, 11
_TENSORS, _GRAPHS, _GRAPH, _SPARSE, _SPARSES = 10, 11, 6, 22, 23
_ORT_FORMAT = b"ORTM"  # onnxruntime's own FlatBuffer, which it knows by this mark


def check(data: memoryview, where: str) -> None:
    """Raise BundleUnsafe, or GraphError where the bytes are no protobuf."""
    if bytes(data[4:8]) == _ORT_FORMAT:
        raise BundleUnsafe(f"{where} is in onnxruntime's own format, allowed is ONNX")
    model = Message(data, where)
    if _MODEL_GRAPH not in model:
        raise BundleUnsafe(f"{where} is no ONNX model: it has no graph")
    _graph(model.message(_MODEL_GRAPH), 0)
    for part in model.messages(_TRAINING, "training information"):
        for number in _TRAINING_GRAPHS:
            _graph(part.message(number), 0)
    for function in model.messages(_FUNCTIONS, "function"):
        _nodes(function, _FUNCTION_NODE, 0)
        _attributes(function, _FUNCTION_ATTRIBUTE, 0)


def _graph(graph: Message, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BundleUnsafe(f"{graph.where} is nested deeper than {MAX_DEPTH} graphs")
    for tensor in graph.messages(GraphField.INITIALIZER, "initializer"):
        _tensor(tensor)
    for sparse in graph.messages(GraphField.SPARSE, "sparse initializer"):
        _sparse(sparse)
    _nodes(graph, GraphField.NODE, depth)


def _nodes(holder: Message, number: int, depth: int) -> None:
    for node in holder.messages(number, "node"):
        domain, operator = node.text(NodeField.DOMAIN), node.text(NodeField.OP)
        if domain not in DOMAINS or operator in READS_FILES:
            raise BundleUnsafe(
                f"{node.where} is {domain or 'ai.onnx'}::{operator}; allowed are operators of "
                f"{', '.join(filter(None, DOMAINS))} that read no files"
            )
        _attributes(node, NodeField.ATTRIBUTE, depth)


def _attributes(holder: Message, number: int, depth: int) -> None:
    for attribute in holder.messages(number, "attribute"):
        for tensor in (
            *attribute.messages(AttributeField.T, "tensor"),
            *attribute.messages(_TENSORS, "tensor"),
        ):
            _tensor(tensor)
        for sparse in (*attribute.messages(_SPARSE, "sparse"), *attribute.messages(_SPARSES, "sparse")):
            _sparse(sparse)
        for graph in (*attribute.messages(_GRAPH, "graph"), *attribute.messages(_GRAPHS, "graph")):
            _graph(graph, depth + 1)


def _sparse(sparse: Message) -> None:
    for number in _SPARSE_PARTS:
        for tensor in sparse.messages(number, "part"):
            _tensor(tensor)


def _tensor(tensor: Message) -> None:
    if TensorField.EXTERNAL in tensor or (
        TensorField.LOCATION in tensor and tensor.integer(TensorField.LOCATION)
    ):
        raise BundleUnsafe(
            f"{tensor.where} {tensor.text(TensorField.NAME)!r} keeps its data in another file; a bundle's "
            "files are whole"
        )
