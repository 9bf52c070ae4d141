# SPDX-License-Identifier: Apache-2.0
"""The `ort-training` target: artifacts of onnxruntime-training, for apps that ship it already.

The step's loss, without the gradients that edgefl derives, becomes a model whose trained parameters are
initializers; onnxruntime's own `generate_artifacts` derives the gradients and writes a training, an
evaluation and an optimizer model and a checkpoint. Frozen BatchNorm is a multiply and an add in that
graph already: its operator would be switched to batch statistics.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgefl.bundle import ArtifactData, Bundle
from edgefl.converters.graft import required
from edgefl.converters.targets.compact import stored_bits
from edgefl.converters.targets.quiet import quiet
from edgefl.errors import ConversionError, MissingDependency, UnsupportedOperator
from edgefl.graph import Array, Graph, read_onnx, write_onnx

TARGET = "ort-training"
FILES = {"training": "training_model.onnx", "eval": "eval_model.onnx", "checkpoint": "checkpoint"}
OPTIMIZERS = ("sgd", "adamw")
_INTEGER = (
    "QuantizeLinear",
    "DequantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearConv",
    "QLinearMatMul",
)
_INSTEAD = "target onnx trains it on any onnxruntime"


def to_ort_training(bundle: Bundle) -> list[ArtifactData]:
    """Training and evaluation models, the checkpoint, and one optimizer model each for SGD and AdamW.

    AdamW is written with no weight decay, so that it is Adam as edgefl's other engines have it.

    Raises:
        UnsupportedOperator: a step with integer constants, dropout or batch statistics, or an operator that
            onnxruntime-training has no gradient for.
        ConversionError: onnxruntime-training refuses the graph.
        MissingDependency: onnxruntime-training is not installed.
    """
    manifest = bundle.manifest
    if manifest.seeded or manifest.updated:
        raise UnsupportedOperator(f"{TARGET}: the step has dropout or batch statistics; {_INSTEAD}")
    graph = loss_graph(read_onnx(bundle.artifact("onnx", "step")))
    integers = sorted({node.op for node in graph if node.op in _INTEGER})
    if integers or (bits := stored_bits(graph)):
        found = ", ".join(integers) or f"weights stored in {bits} bits"
        raise UnsupportedOperator(f"{TARGET}: the step has integer constants ({found}); {_INSTEAD}")
    values = bundle.parameters()
    trained = {p.name: values[p.name] for p in manifest.trained}
    model = _model(graph, trained)
    try:
        made = {optimizer: _generate(model, list(trained), optimizer) for optimizer in OPTIMIZERS}
    except _Refused as exc:
        raise _refusal(str(exc), graph) from exc.__cause__
    files = {**made["sgd"], **{f"optimizer-{o}": made[o]["optimizer"] for o in OPTIMIZERS}}
    return [ArtifactData(TARGET, kind, data) for kind, data in files.items() if kind != "optimizer"]


def with_ort_training(bundle: Bundle) -> Bundle:
    """The bundle with the artifacts of onnxruntime-training in it; raises as `to_ort_training`."""
    made = to_ort_training(bundle)
    changed = bundle.with_artifacts(made)
    row = {"training": {"bytes": sum(len(a.data) for a in made), "optimizers": list(OPTIMIZERS)}}
    report = {**bundle.manifest.report}
    report["targets"] = {**report.get("targets", {}), TARGET: row}
    return replace(changed, manifest=replace(changed.manifest, report=report))


class _Refused(Exception):
    """onnxruntime-training's own words."""


def loss_graph(step: Graph) -> Graph:
    """The part of a step that its loss needs: what comes before the gradients."""
    nodes = tuple(required(step, ["loss"]))
    used = {name for node in nodes for name in node.inputs}
    return replace(
        step,
        outputs={"loss": step.outputs["loss"]},
        nodes=nodes,
        constants={name: value for name, value in step.constants.items() if name in used},
        name="loss",
    )


def _model(graph: Graph, trained: Mapping[str, Array]) -> Any:
    """The graph as an ONNX message with the parameters as initializers, its nodes named apart."""
    try:
        import onnx
    except ImportError as exc:
        raise MissingDependency("onnx", "", f"target {TARGET}") from exc
    nodes = tuple(replace(node, name=f"node_{i}") for i, node in enumerate(graph))
    inputs = {name: type for name, type in graph.inputs.items() if name not in trained}
    bound = replace(graph, nodes=nodes, inputs=inputs, constants={**graph.constants, **trained})
    return onnx.load_from_string(write_onnx(bound))


def _generate(model: Any, names: list[str], optimizer: str) -> dict[str, bytes]:
    with quiet("onnxruntime"):
        try:
            from onnxruntime.training import artifacts, onnxblock
        except ImportError as exc:
            raise MissingDependency("onnxruntime-training-cpu", TARGET, f"target {TARGET}") from exc
        # Blocks check in their constructor for what adam in edgefl.runtime.optimizer has as defaults.
        rules = {
            "sgd": lambda: artifacts.OptimType.SGD,
            "adamw": lambda: onnxblock.optim.AdamW(betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0),
        }
        with tempfile.TemporaryDirectory() as folder:
            try:
                artifacts.generate_artifacts(
                    model, requires_grad=names, optimizer=rules[optimizer](), artifact_directory=folder
                )
            except Exception as exc:  # onnxruntime raises RuntimeError and its own types alike
                raise _Refused(str(exc)) from exc
            read = {kind: (Path(folder) / file).read_bytes() for kind, file in FILES.items()}
            return {**read, "optimizer": (Path(folder) / "optimizer_model.onnx").read_bytes()}


def _refusal(text: str, graph: Graph) -> ConversionError:
    found = re.search(r"gradient builder has not been registered: *(\w+)(?: for node (node_(\d+)))?", text)
    if found is None:
        return ConversionError(
            f"onnxruntime-training refuses the step: {' '.join(text.split())[:300]}; {_INSTEAD}"
        )
    node = graph.nodes[int(found[3])] if found[3] else None
    where = f" (node {node})" if node else ""
    return UnsupportedOperator(f"{TARGET} has no gradient for operator {found[1]}{where}; {_INSTEAD}")
