# SPDX-License-Identifier: Apache-2.0
"""The bundle: one file holding a model's graphs, parameters and a manifest that says what they are."""

from edgefl.bundle.bundle import ArtifactData, Bundle
from edgefl.bundle.manifest import ACTIVATIONS, EXTENSIONS, KINDS, Artifact, Entry, Head, Manifest, TensorSpec

__all__ = [
    "ACTIVATIONS",
    "EXTENSIONS",
    "KINDS",
    "Artifact",
    "ArtifactData",
    "Bundle",
    "Entry",
    "Head",
    "Manifest",
    "TensorSpec",
]
