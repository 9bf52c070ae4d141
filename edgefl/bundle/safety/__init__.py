# SPDX-License-Identifier: Apache-2.0
"""Files inside a bundle that would make an engine reach outside it, refused before any engine sees them.

Formats of models can name other files: ONNX tensors whose data is elsewhere, blobs of Core ML, external
buffers of TFLite. Engines follow such names on the device that runs them, and what they read would travel
home in an update. So would whatever a custom operator does. A bundle's files are whole, or it is no bundle.
"""

from __future__ import annotations

from edgefl.bundle.manifest import extension
from edgefl.bundle.safety import coreml, onnx, tflite
from edgefl.errors import BundleUnsafe, EdgeflError

_CHECKS = {"onnx": onnx.check, "tflite": tflite.check, "mlpackage.zip": coreml.check_package,
           "mlmodel": coreml.check_model}  # fmt: skip
"""By file extension. A checkpoint of onnxruntime-training names no file: its engine only looks beside it,
in a folder that the runtime makes for it."""


def check_artifact(target: str, kind: str, data: bytes | memoryview, where: str) -> None:
    """Insist that an artifact is whole in itself.

    Raises:
        BundleUnsafe: it names a file, holds a custom operator, or is not of its format at all.
    """
    check = _CHECKS.get(extension(target, kind))
    if check is None:
        return
    try:
        check(memoryview(data), where)
    except BundleUnsafe:
        raise
    except EdgeflError as exc:
        raise BundleUnsafe(f"{where} is not of its format: {exc}") from exc
