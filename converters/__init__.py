# SPDX-License-Identifier: Apache-2.0
"""The workstation: from a Keras, PyTorch or ONNX model to an edge training bundle."""

from edgefl.converters.convert import convert
from edgefl.converters.deployment import Export, ExportedFile, FileTensor, export
from edgefl.converters.giving_back import load_into
from edgefl.converters.peft import export_peft, import_peft
from edgefl.converters.targets.int8 import export_int8

__all__ = [
    "Export",
    "ExportedFile",
    "FileTensor",
    "convert",
    "export",
    "export_int8",
    "export_peft",
    "import_peft",
    "load_into",
]
