# SPDX-License-Identifier: Apache-2.0
"""The trainability report: what is trained, where the model is cut, and what a step costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

from edgefl.bundle import Manifest
from edgefl.converters.sources.forward import Forward
from edgefl.converters.step import Graphs
from edgefl.converters.targets.tflite import LITERT, later_release
from edgefl.graph.model import Graph
from edgefl.parameters import ROLES


@dataclass(frozen=True)
class RoleTotal:
    """The parameters of one role: how many tensors, elements and bytes."""

    tensors: int
    elements: int
    nbytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes a step needs at least, beside the engine itself.

    Attributes:
        weights: parameters, trained and frozen.
        gradients: of the trained parameters.
        activations: the most that is alive at once while the step's nodes run in order, each tensor
            freed after its last reader; inputs, constants and outputs are not counted.
    """

    weights: int
    gradients: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.activations


@dataclass(frozen=True)
class TrainabilityReport:
    """What conversion decided.

    Attributes:
        parameters: role to totals.
        trained: names of the trained parameters, in order.
        cut: the tensors at which the frozen prefix ends, empty where the model is in one piece.
        feature_bytes: size of what is cached per example.
        operators: graph (`step`, `features`, `infer`) to operator to count.
        memory: what a step needs.
        untrained: what was asked to be trained and is not, each by name, and why.
        notes: decisions, in sentences.
    """

    parameters: Mapping[str, RoleTotal]
    trained: tuple[str, ...]
    cut: tuple[str, ...]
    feature_bytes: int
    operators: Mapping[str, Mapping[str, int]]
    memory: Memory
    untrained: Mapping[str, str]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers."""
        plain = asdict(self)
        plain["memory"]["total"] = self.memory.total
        return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}


def make_report(
    forward: Forward, graphs: Graphs, untrained: Mapping[str, str] | None = None
) -> TrainabilityReport:
    """The report of a converted model; `untrained` was selected and is not trained, with the reason."""
    named = {"step": graphs.step, "features": graphs.features, "infer": graphs.infer}
    return TrainabilityReport(
        parameters={role: _total(forward, graphs, role) for role in ROLES},
        trained=graphs.trained,
        cut=graphs.cut.tensors if graphs.cut else (),
        feature_bytes=graphs.cut.nbytes if graphs.cut else 0,
        operators={name: graph.operators() for name, graph in named.items() if graph},
        memory=step_memory(graphs.step),
        untrained={
            **(untrained or {}),
            **graphs.idle,
            **forward.strays,
        },
        notes=graphs.notes,
    )


def what_runs(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """For each target of a bundle: whether it trains there, its graphs, and the engines that run them."""
    found = {}
    for target in manifest.targets:
        kinds = [a.kind for a in manifest.artifacts if a.target == target]
        trains = any(kind in ("step", "updatable", "training") for kind in kinds)
        found[target] = {"trains": trains, "graphs": kinds, "engines": _engines(manifest, target)}
    return found


def _engines(manifest: Manifest, target: str) -> str:
    row = manifest.report.get("targets", {}).get(target, {})
    if target == "onnx":
        return "onnxruntime from 1.17, OpenVINO, NumPy"
    if target == "tflite":
        needed = [str(kind["min_runtime"]) for kind in row.values() if kind.get("min_runtime")]
        newest = reduce(later_release, needed, "")
        if newest.startswith(LITERT):
            return f"LiteRT from {newest.removeprefix(LITERT)}"
        return f"LiteRT, tflite-runtime from {newest}" if newest else "LiteRT, tflite-runtime"
    return f"Core ML from {row['system']}" if row.get("system") else target


def _total(forward: Forward, graphs: Graphs, role: str) -> RoleTotal:
    values = [forward.parameters[name] for name, own in graphs.roles.items() if own == role]
    return RoleTotal(len(values), sum(v.size for v in values), sum(v.nbytes for v in values))


def step_memory(step: Graph) -> Memory:
    """What a step graph needs, computed from its types."""
    grads = {name: type for name, type in step.outputs.items() if name.startswith("grad/")}
    trained = [step.inputs[name.removeprefix("grad/")].nbytes for name in grads]
    return Memory(
        weights=sum(trained) + sum(v.nbytes for v in step.constants.values()),
        gradients=sum(type.nbytes for type in grads.values()),
        activations=peak_activations(step),
    )


def peak_activations(graph: Graph) -> int:
    """The most bytes of intermediate tensors alive at once, nodes run in order."""
    last = {t: i for i, node in enumerate(graph.nodes) for t in node.inputs}
    alive, peak = 0, 0
    for i, node in enumerate(graph.nodes):
        own = [t for t in node.outputs if t and t not in graph.outputs]
        alive += sum(graph.type_of(t).nbytes for t in own)
        peak = max(peak, alive)
        made = {*node.inputs, *own} - set(graph.inputs) - set(graph.constants) - set(graph.outputs) - {""}
        alive -= sum(graph.type_of(t).nbytes for t in made if last.get(t, i) == i)
    return peak
