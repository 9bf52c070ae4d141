# SPDX-License-Identifier: Apache-2.0
"""The device: engines, training, and the client that joins rounds."""

from edgefl.runtime.backends import BACKENDS, Backend, Program, open_backend
from edgefl.runtime.delegates import Placement
from edgefl.runtime.download import pull
from edgefl.runtime.feature_cache import FeatureCache
from edgefl.runtime.metrics import Metrics
from edgefl.runtime.trainer import FitReport, Trainer

__all__ = [
    "BACKENDS",
    "Backend",
    "FeatureCache",
    "FitReport",
    "Metrics",
    "Placement",
    "Program",
    "Trainer",
    "open_backend",
    "pull",
]
