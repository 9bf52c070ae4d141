# SPDX-License-Identifier: Apache-2.0
"""Writers of what runs on devices: ONNX and TFLite, in float32 and int8."""

from edgefl.converters.targets.frozen import FeaturesReport, Int8Features, int8_features
from edgefl.converters.targets.int8 import Int8Export, Int8Report, export_int8
from edgefl.converters.targets.onnx import to_onnx
from edgefl.converters.targets.tflite import TFLiteModel, to_tflite

__all__ = [
    "FeaturesReport",
    "Int8Export",
    "Int8Features",
    "Int8Report",
    "TFLiteModel",
    "export_int8",
    "int8_features",
    "to_onnx",
    "to_tflite",
]
