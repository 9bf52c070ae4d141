# SPDX-License-Identifier: Apache-2.0
"""Graphs as artifacts of a bundle, for the engines that take any graph."""

from __future__ import annotations

from collections.abc import Mapping

from edgefl.bundle import ArtifactData
from edgefl.converters.targets import TFLiteModel, to_onnx, to_tflite
from edgefl.converters.targets.compact import compact
from edgefl.converters.targets.compact_tflite import compact_tflite
from edgefl.converters.targets.filled import filled
from edgefl.errors import UnsupportedOperator
from edgefl.graph.model import Graph


def onnx_artifact(graph: Graph, kind: str, bits: int | None = None) -> ArtifactData:
    """The graph as ONNX; `bits` stores rounded constants in so many."""
    return ArtifactData("onnx", kind, to_onnx(filled(compact(graph, bits) if bits else graph)))


def tflite_artifact(graph: Graph, kind: str, bits: int | None = None) -> tuple[ArtifactData, TFLiteModel]:
    """The graph for TFLite, and what its writer says of it.

    Raises:
        UnsupportedOperator: TFLite has no counterpart of a node.
    """
    try:
        lite = to_tflite(graph, kind)
    except UnsupportedOperator as exc:
        raise UnsupportedOperator(
            f"{kind} for TFLite: {exc}; leave this target out (targets=('onnx',), --target onnx), or freeze "
            "or rewrite the layer"
        ) from exc
    lite = compact_tflite(lite, bits) if bits else lite
    return ArtifactData("tflite", kind, lite.data, differing(lite.inputs), differing(lite.outputs)), lite


def differing(names: Mapping[str, str]) -> dict[str, str]:
    """A target's own names for tensors, where they are not the contract's."""
    return {contract: own for contract, own in names.items() if contract != own}
