# SPDX-License-Identifier: Apache-2.0
"""The Core ML target: graphs as ML Programs, and trainable tails as classic updatable models."""

from edgefl.converters.targets.coreml.compress import to_compressed
from edgefl.converters.targets.coreml.export import (
    CoreMLExport,
    compressed_models,
    export_coreml,
    with_coreml,
)
from edgefl.converters.targets.coreml.program import TARGETS, CoreMLModel, check_target, to_coreml
from edgefl.converters.targets.coreml.updatable import Updatable, to_updatable, validate

__all__ = [
    "TARGETS",
    "CoreMLExport",
    "CoreMLModel",
    "Updatable",
    "check_target",
    "compressed_models",
    "export_coreml",
    "to_compressed",
    "to_coreml",
    "to_updatable",
    "validate",
    "with_coreml",
]
