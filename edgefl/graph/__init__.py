# SPDX-License-Identifier: Apache-2.0
"""The step graph as a value: reading and writing ONNX, and interpreting it with NumPy."""

from edgefl.graph.interpreter import Interpreter, run
from edgefl.graph.model import OPSET, Array, Attribute, Graph, Node, TensorType
from edgefl.graph.onnx_reader import read_onnx
from edgefl.graph.onnx_writer import write_onnx

__all__ = [
    "OPSET",
    "Array",
    "Attribute",
    "Graph",
    "Interpreter",
    "Node",
    "TensorType",
    "read_onnx",
    "run",
    "write_onnx",
]
