# SPDX-License-Identifier: Apache-2.0
"""A batch, and a bundle's step on it with float64 where it has float32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.graph import Graph, read_onnx, run
from edgefl.graph.model import Node, TensorType
from tests.models.reference import Values
from tests.models.zoo import Array, alone

_FLOAT, _DOUBLE = 1, 11  # ONNX element types


@dataclass(frozen=True)
class Batch:
    """One batch: `data` by the model's names, `x` as the bundle's trainer takes it."""

    data: Values
    y: Array
    bundle: Bundle

    @property
    def x(self) -> Any:
        return alone(self.named)

    @property
    def named(self) -> dict[str, Array]:
        specs = self.bundle.manifest.inputs
        only = next(iter(self.data.values()))
        return {s.name: self.data.get(s.name, only).astype(s.dtype) for s in specs}


class DoubleStep:
    """The bundle's step with float64 where it has float32, on the NumPy interpreter."""

    def __init__(self, bundle: Bundle, batch: Batch) -> None:
        self.graph = in_double(read_onnx(bundle.artifact("onnx", "step")))
        self.feeds = {**batch.named, "y": batch.y, "weight": np.ones(len(batch.y))}

    def __call__(self, parameters: Values) -> tuple[float, dict[str, Array]]:
        feeds = {n: v.astype(self.graph.inputs[n].dtype) for n, v in {**self.feeds, **parameters}.items()}
        made = run(self.graph, feeds)
        return float(made["loss"]), {n: made[f"grad/{n}"] for n in parameters}


def in_double(graph: Graph) -> Graph:
    """The graph with float64 where it has float32."""
    return replace(
        graph,
        inputs={n: _wider(t) for n, t in graph.inputs.items()},
        outputs={n: _wider(t) for n, t in graph.outputs.items()},
        nodes=tuple(map(_double_node, graph.nodes)),
        constants={n: v.astype(_wider(TensorType.of(v)).dtype) for n, v in graph.constants.items()},
        types={n: _wider(t) for n, t in graph.types.items()},
    )


def _wider(type: TensorType) -> TensorType:
    return TensorType(np.dtype(np.float64), type.shape) if type.dtype == np.float32 else type


def _double_node(node: Node) -> Node:
    if node.op == "Cast" and node.attributes.get("to") == _FLOAT:
        return replace(node, attributes={**node.attributes, "to": _DOUBLE})
    return node
