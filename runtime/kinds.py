# SPDX-License-Identifier: Apache-2.0
"""Which of a bundle's artifacts plays which part."""

from __future__ import annotations

from edgefl.bundle import Manifest

FEATURES = ("features-int8", "features")


def features_kinds(manifest: Manifest, target: str) -> tuple[str, ...]:
    """Artifacts that make features, the preferred first: in int8 where the bundle has it, which is what
    accelerators take; empty where nothing is frozen."""
    return tuple(kind for kind in FEATURES if manifest.find(target, kind) is not None)
