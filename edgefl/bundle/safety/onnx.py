# SPDX-License-Identifier: Apache-2.0
"""ONNX files: no tensor elsewhere, no operator of an unknown domain, however deep it is nested.

The walk follows onnx.proto wherever a tensor or a node can stand: initializers, sparse ones, attributes,
subgraphs, training information and functions. Tensors' contents are not looked at.
"""

from __future__ import annotations

from edgefl.bundle.safety.messages import Layout, walk
from edgefl.errors import BundleUnsafe
from edgefl.graph.onnx_schema import (
    AttributeField,
    FunctionField,
    GraphField,
    ModelField,
    NodeField,
    SparseField,
    TensorField,
    TrainingField,
)

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft")
"""Operators of standard and of onnxruntime itself."""
REACHING_OUT = ("EPContext", "PythonOp", "PythonOpGrad")
"""Operators of these domains that name a file, or code of the process they run in."""

_LAYOUT: Layout = {
    "model": {
        ModelField.GRAPH: "graph",
        ModelField.TRAINING: "training",
        ModelField.FUNCTIONS: "function",
    },
    "training": {TrainingField.INITIALIZATION: "graph", TrainingField.ALGORITHM: "graph"},
    "function": {FunctionField.NODE: "node", FunctionField.ATTRIBUTE: "attribute"},
    "graph": {GraphField.NODE: "node", GraphField.INITIALIZER: "tensor", GraphField.SPARSE: "sparse"},
    "node": {NodeField.ATTRIBUTE: "attribute"},
    "attribute": {
        AttributeField.T: "tensor",
        AttributeField.TENSORS: "tensor",
        AttributeField.G: "graph",
        AttributeField.GRAPHS: "graph",
        AttributeField.SPARSE: "sparse",
        AttributeField.SPARSES: "sparse",
    },
    "sparse": {SparseField.VALUES: "tensor", SparseField.INDICES: "tensor"},
    "tensor": {},
}

_OTHER_FORMATS = (b"ORTM", b"TFL3")
"""Marks at byte 4 by which engines know FlatBuffers of theirs, whatever else the bytes could be read as."""


def check(data: memoryview, where: str) -> None:
    """Raise BundleUnsafe, or GraphError where the bytes are no protobuf."""
    if bytes(data[4:8]) in _OTHER_FORMATS:
        raise BundleUnsafe(f"{where} is marked as {bytes(data[4:8]).decode()}, allowed is ONNX")
    graph = False
    for field in walk(data, _LAYOUT, "model", where):
        if field.message == "tensor":
            if field.number == TensorField.EXTERNAL or (field.number == TensorField.LOCATION and field.value):
                raise BundleUnsafe(
                    f"{where} has a tensor that keeps its data in another file; a bundle's files are whole"
                )
        elif field.message == "node":
            if field.number == NodeField.DOMAIN and field.text() not in DOMAINS:
                raise BundleUnsafe(f"{where} has an operator of the domain {field.text()[:80]!r}; {_ALLOWED}")
            if field.number == NodeField.OP and field.text() in REACHING_OUT:
                raise BundleUnsafe(f"{where} has the operator {field.text()}; {_ALLOWED}")
        elif field.message == "model":
            graph = graph or field.number == ModelField.GRAPH
            if field.number == ModelField.IR_VERSION and not isinstance(field.value, int):
                raise BundleUnsafe(f"{where} is no ONNX model: its IR version is no number")
    if not graph:
        raise BundleUnsafe(f"{where} is no ONNX model: it has no graph")


_ALLOWED = f"allowed are operators of {', '.join(filter(None, DOMAINS))} that do not leave the graph"
