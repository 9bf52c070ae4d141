# SPDX-License-Identifier: Apache-2.0
"""Writers of what runs on devices: ONNX and TFLite."""

from edgefl.converters.targets.onnx import to_onnx
from edgefl.converters.targets.tflite import TFLiteModel, to_tflite

__all__ = ["TFLiteModel", "to_onnx", "to_tflite"]
