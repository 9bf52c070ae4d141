# SPDX-License-Identifier: Apache-2.0
"""Everything Core ML of a bundle, made from the ONNX graphs the bundle always has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgefl.bundle import ArtifactData, Bundle
from edgefl.converters.graft import bind
from edgefl.converters.targets.absorb import absorb
from edgefl.converters.targets.calibration import Calibration, batches, check_calibration
from edgefl.converters.targets.compact import stored_bits
from edgefl.converters.targets.coreml import precision
from edgefl.converters.targets.coreml.compress import to_compressed
from edgefl.converters.targets.coreml.golden import golden_inputs
from edgefl.converters.targets.coreml.program import TARGETS, CoreMLModel, check_target, to_coreml
from edgefl.converters.targets.coreml.updatable import to_updatable
from edgefl.converters.targets.single import single
from edgefl.errors import ConversionError, UnsupportedOperator
from edgefl.graph import Graph, read_onnx
from edgefl.graph.interpreter import settled

KINDS = ("step", "features", "infer")


@dataclass(frozen=True)
class CoreMLExport:
    """What became of a bundle.

    Attributes:
        artifacts: for the bundle.
        report: by kind: bytes, operators, deployment target; and why a kind was left out.
    """

    artifacts: tuple[ArtifactData, ...]
    report: Mapping[str, Any]


def export_coreml(
    bundle: Bundle,
    target: str = TARGETS[0],
    *,
    optimizer: str = "sgd",
    on_stage: Callable[[str], None] | None = None,
) -> CoreMLExport:
    """ML Programs of the step (float32 and float16), the features and the model, and the updatable model.

    Where the float16 step or the updatable model cannot be made, the report says why.

    Raises:
        UnsupportedOperator: a node has no counterpart in Core ML.
        ConversionError: coremltools refuses a graph, or the target is unknown.
        MissingDependency: coremltools is not installed.
    """
    check_target(target)
    tell = on_stage or (lambda text: None)
    graphs = {
        kind: read_onnx(bundle.artifact("onnx", kind)) for kind in KINDS if bundle.manifest.find("onnx", kind)
    }
    artifacts, report = [], dict[str, Any]()
    for kind, graph in graphs.items():
        tell(f"writing {kind} for Core ML")
        # What is stored in few bits stays as it is: a scale taken in would cost the rounding.
        plain = kind != "features" or stored_bits(graph) is not None
        made = to_coreml(graph if plain else absorb(settled(graph)), kind, target=target)
        artifacts.append(as_artifact(kind, made))
        report[kind] = _row(made)
    tell("writing step in float16 for Core ML")
    _try(artifacts, report, "step-float16", lambda: _half(bundle, graphs, target))
    tell("writing the updatable model")
    _try(artifacts, report, "updatable", lambda: _updatable(bundle, optimizer))
    return CoreMLExport(tuple(artifacts), report)


def with_coreml(
    bundle: Bundle,
    target: str = TARGETS[0],
    calibration: Calibration | None = None,
    on_stage: Callable[[str], None] | None = None,
    weights: str = "int8",
) -> Bundle:
    """The bundle with everything Core ML in it, the int8 files too where there are calibration examples.

    Raises:
        As `export_coreml`, and CalibrationError where the examples are unusable.
    """
    tell = on_stage or (lambda text: None)
    made = export_coreml(bundle, target, on_stage=tell)
    artifacts, report = list(made.artifacts), dict(made.report)
    if calibration is not None:
        tell("compressing for Core ML")
        for kind, compressed in compressed_models(bundle, calibration, target, weights).items():
            artifacts.append(as_artifact(kind, compressed))
            report[kind] = _row(compressed)
    changed = bundle.with_artifacts(artifacts)
    targets = {**bundle.manifest.report.get("targets", {}), "coreml": report}
    return replace(
        changed, manifest=replace(changed.manifest, report={**bundle.manifest.report, "targets": targets})
    )


def compressed_models(
    bundle: Bundle, calibration: Calibration, target: str = TARGETS[0], weights: str = "int8"
) -> dict[str, CoreMLModel]:
    """`infer-int8` and, where there is a frozen prefix, `features-int8`: weights small, activations float16.

    From iOS 17 with weights in int8, activations are rounded to int8 too. Models take one example at a time
    where they allow it.

    Raises:
        CalibrationError: the examples are too few or unusable.
        ConversionError: the target cannot hold what was asked for.
    """
    examples = check_calibration(calibration, bundle.manifest.inputs)
    made = {}
    for kind in ("infer", "features"):
        if bundle.manifest.find("onnx", kind) is None:
            continue
        whole = read_onnx(bundle.artifact("onnx", kind))
        values = {name: v for name, v in bundle.parameters().items() if name in whole.inputs}
        graph = single(bind(whole, values))
        size = next(iter(graph.inputs.values())).shape[0]
        rounded = weights == "int8" and target != TARGETS[0]
        feeds = batches({name: examples[name] for name in graph.inputs}, size) if rounded else ()
        made[f"{kind}-int8"] = to_compressed(
            graph, f"{kind}-int8", weights=weights, target=target, calibration=feeds
        )
    return made


def as_artifact(kind: str, made: CoreMLModel) -> ArtifactData:
    """A converted graph on its way into a bundle."""
    return ArtifactData("coreml", kind, made.data, _differing(made.inputs), _differing(made.outputs))


def _differing(names: Mapping[str, str]) -> dict[str, str]:
    return {contract: own for contract, own in names.items() if contract != own}


def _row(made: CoreMLModel) -> dict[str, Any]:
    row: dict[str, Any] = {
        "bytes": len(made.data),
        "operators": dict(made.operators),
        "float16": dict(made.half_operators),
        "target": made.target,
    }
    if made.note:
        row["note"] = made.note
    return row if made.scale == 1 else {**row, "loss_scale": made.scale}


def _try(
    artifacts: list[ArtifactData],
    report: dict[str, Any],
    kind: str,
    make: Callable[[], tuple[ArtifactData, dict[str, Any]]],
) -> None:
    """Add what can be made; where it cannot, the report says why."""
    try:
        made, report[kind] = make()
        artifacts.append(made)
    except (UnsupportedOperator, ConversionError) as exc:
        report[kind] = {"left_out": str(exc)}


def _half(bundle: Bundle, graphs: Mapping[str, Graph], target: str) -> tuple[ArtifactData, dict[str, Any]]:
    step = graphs["step"]
    scale = precision.choose_scale(step, golden_inputs(bundle, step))
    made = to_coreml(step, "step-float16", target=target, half=True, scale=scale)
    return as_artifact("step-float16", made), _row(made)


def _updatable(bundle: Bundle, optimizer: str) -> tuple[ArtifactData, dict[str, Any]]:
    made = to_updatable(bundle, optimizer)
    row = {"bytes": len(made.data), "layers": [dict(layer) for layer in made.layers], "optimizer": optimizer}
    return ArtifactData("coreml", "updatable", made.data, dict(made.inputs), dict(made.outputs)), row
