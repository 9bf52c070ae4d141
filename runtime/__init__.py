# SPDX-License-Identifier: Apache-2.0
"""The device: engines, training, and the client that joins rounds.

Names are looked up on first use, so that importing one part does not cost the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefl.runtime.backends import BACKENDS, Backend, Program, open_backend
    from edgefl.runtime.delegates import Placement
    from edgefl.runtime.download import pull
    from edgefl.runtime.feature_cache import FeatureCache
    from edgefl.runtime.metrics import Metrics
    from edgefl.runtime.store import ExampleStore
    from edgefl.runtime.trainer import FitReport, Trainer

_DOORS = {
    "BACKENDS": "edgefl.runtime.backends",
    "Backend": "edgefl.runtime.backends",
    "ExampleStore": "edgefl.runtime.store",
    "FeatureCache": "edgefl.runtime.feature_cache",
    "FitReport": "edgefl.runtime.trainer",
    "Metrics": "edgefl.runtime.metrics",
    "Placement": "edgefl.runtime.delegates",
    "Program": "edgefl.runtime.backends",
    "Trainer": "edgefl.runtime.trainer",
    "open_backend": "edgefl.runtime.backends",
    "pull": "edgefl.runtime.download",
}

__all__ = [
    "BACKENDS",
    "Backend",
    "ExampleStore",
    "FeatureCache",
    "FitReport",
    "Metrics",
    "Placement",
    "Program",
    "Trainer",
    "open_backend",
    "pull",
]


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module 'edgefl.runtime' has no attribute {name!r}")
    return getattr(importlib.import_module(_DOORS[name]), name)
