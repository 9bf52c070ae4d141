# SPDX-License-Identifier: Apache-2.0
"""What a merged or sliced bundle cannot do, in one sentence each."""

from __future__ import annotations

from edgefl.bundle.manifest import Manifest
from edgefl.errors import BundleEntry

_INFERENCE = ("infer", "infer-int8")
_TRUTH = "onnx"
"""The target every conversion writes: only a slice is without it."""


def why_missing(manifest: Manifest, target: str, kind: str) -> str:
    """Why a bundle has no such artifact, and what to take instead."""
    name, have = f"bundle {manifest.name!r}", ", ".join(f"{a.target}/{a.kind}" for a in manifest.artifacts)
    if "merged" in manifest.provenance and kind not in _INFERENCE:
        return (
            f"{name} is merged, its adapters are part of the weights: it infers and is exported, but does "
            "not train, evaluate or serve; the bundle it was merged from does"
        )
    if target == _TRUTH and not any(a.target == _TRUTH for a in manifest.artifacts):
        return (
            f"{name} is a slice for {', '.join(manifest.targets) or 'nothing'} without ONNX graphs: it "
            "trains and infers on a device, but is not exported, merged, verified or served; "
            "the whole bundle is"
        )
    return f"{name} has no artifact {target}/{kind}; it has {have or 'none'}"


def check_whole(manifest: Manifest) -> None:
    """Raises BundleEntry unless the bundle trains, here by NumPy at least, and can be exported afterwards."""
    if manifest.find(_TRUTH, "step") is None:
        raise BundleEntry(why_missing(manifest, _TRUTH, "step"))
