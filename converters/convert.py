# SPDX-License-Identifier: Apache-2.0
"""The whole way from a model to a bundle."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from edgefl._version import __version__
from edgefl.bundle import ArtifactData, Bundle, Head, TensorSpec
from edgefl.converters import lora
from edgefl.converters import prove as proving
from edgefl.converters.artifacts import differing, onnx_artifact, tflite_artifact
from edgefl.converters.asked import check_asked, check_frozen
from edgefl.converters.golden import Goldens, with_int8_sketches
from edgefl.converters.losses import LossSpec, make_objective
from edgefl.converters.precision import Precision
from edgefl.converters.ranges import index_limits
from edgefl.converters.report import make_report, what_runs
from edgefl.converters.selection import UNTRAINED, Selection, misnamed, passed_over, select
from edgefl.converters.sources import Forward, load_forward
from edgefl.converters.step import Graphs, make_graphs
from edgefl.converters.targets import TFLiteModel, int8_features
from edgefl.converters.targets.calibration import check_calibration
from edgefl.converters.targets.tflite import has_tensorflow, no_tensorflow
from edgefl.converters.training import SEED, prepare
from edgefl.converters.weights import MIN_SIZE
from edgefl.errors import ConversionError, NotTrained, WrongElsewhere
from edgefl.graph.model import Array, Graph, TensorType
from edgefl.parameters import Parameter

TARGETS = ("onnx", "tflite")
"""Written unless said otherwise, as far as what writes them is installed."""

MORE_TARGETS = ("coreml", "ort-training")
DEFAULTS = {"lr": 0.05, "momentum": 0.0, "epochs": 1}

Stage = Callable[[str], None]


def convert(
    model: Any,
    example_inputs: Any = None,
    *,
    loss: LossSpec = "softmax_cross_entropy",
    label: Any = None,
    trainable: Selection = "all",
    personal: Selection | None = None,
    batch_size: int = 16,
    targets: Sequence[str] | None = None,
    calibration: Any = None,
    dropout: bool = False,
    batch_norm: str = "frozen",
    qat: bool = False,
    frozen_bits: int | None = None,
    name: str = "model",
    prove: bool = True,
    on_stage: Stage | None = None,
) -> Bundle:
    """Turn a model into an edge training bundle.

    Args:
        model: a Keras 3 model, a `torch.nn.Module`, ONNX bytes, or a path: a `.keras`, `.pt2` or `.onnx`
            file, or `module.py:factory`.
        example_inputs: an array, tuple or dict of arrays, batch first; only shapes and dtypes matter. None
            where the model knows its input.
        loss: a name of `edgefl.converters.losses.LOSSES`, or a callable of the model's framework that gives
            one value per example: `loss(y_true, y_pred)` for Keras, `loss(output, y)` for PyTorch, objects of
            `keras.losses` and `torch.nn` included. A mapping of output names to such, alone or as
            `(loss, share)`, trains several outputs for the sum; otherwise it is the first output's.
        label: example labels (or a `TensorSpec`), by output where there are several; only callables need it.
        trainable: what is trained and shared: `all`, `last:N`, `bias`, `norm`, patterns of names, or
            `lora:rank=R[:alpha=A][:pattern...]`.
        personal: what is trained but never leaves the device.
        batch_size: examples per step; static, smaller batches are padded with weight 0.
        targets: engines to write artifacts for: `onnx`, `tflite`, `coreml` (`coreml:iOS17` for a newer
            system than iOS 16), `ort-training` (docs/ort-training.md says why rather not). None is `onnx` and
            `tflite`, without the latter where TensorFlow, which writes it, is not installed; a note says so.
            The ONNX graphs are always in the bundle: they are what the NumPy engine runs and what int8
            exports are made from.
        calibration: examples for the int8 model, `[N, ...]`; None leaves the int8 model out.
        dropout: keep the model's dropout in training; each step takes a seed. Off by default.
        batch_norm: `frozen` keeps the running statistics, `batch` takes those of each batch and updates the
            running ones, `group` replaces BatchNorm by GroupNorm.
        qat: steps compute with trained products' operands rounded to int8, so that the trained model loses
            less in the int8 export.
        frozen_bits: 8 or 4 stores large frozen weights as integers with scales, dequantized in the graphs.
        name: the bundle's name.
        prove: run every file on the engines of this machine, and refuse to write what any of those it is
            written for computes unlike NumPy. The report says what was tried, or that nothing was.
        on_stage: called with what is being done.

    Warns:
        NotTrained: something that was asked to be trained is not; each is named, with the reason.
        WrongElsewhere: an engine that shares a file with the one it is written for computes it wrongly.

    Raises:
        NotProved: an engine a file is written for does not compute it as NumPy does.
        ConversionError: the model cannot be loaded, differentiated, or written for a target; the message
            names the node and what to do.
        OptionError: what is asked for makes no sense, such as frozen weights in few bits with none frozen.
        MissingDependency: an exporter is not installed.
    """
    targets, without = _default_targets() if targets is None else (targets, ())
    _check_targets(targets)
    check_asked(loss, batch_size, batch_norm, frozen_bits)
    tell = on_stage or (lambda text: None)
    tell("tracing the model")
    forward = load_forward(
        model, example_inputs, batch_size=batch_size, dropout=dropout, batch_norm=batch_norm
    )
    forward = prepare(forward, dropout=dropout, batch_norm=batch_norm)
    forward, chosen, adapters = lora.adapt(forward, trainable)
    roles = select(
        list(forward.parameters),
        forward.trainable,
        chosen,
        personal=personal or None,
        buffers=forward.buffers,
        aliases=forward.aliases,
    )
    check_frozen(frozen_bits, forward, roles)
    named = [spec for spec in (chosen, personal) if spec]
    frozen = [n for spec in named for n in passed_over(list(roles), forward.trainable, spec, forward.buffers)]
    untrained = dict.fromkeys(frozen, UNTRAINED)
    for spec in named:
        untrained |= misnamed(roles, forward.aliases, spec)
    if qat and forward.training is not None:
        raise ConversionError("qat knows inference only; convert without dropout and batch statistics")
    tell("differentiating")
    precision = Precision(frozen_bits, qat)
    graphs = make_graphs(forward, roles, make_objective(loss, forward, label), precision)
    notes, bare = lora.told(forward, trainable, adapters, graphs.trained)
    graphs = replace(graphs, notes=(*graphs.notes, *notes, *without))
    heads, limits = _heads(graphs), index_limits(graphs.infer)
    artifacts, target_report = _artifacts(graphs, targets, frozen_bits, tell)
    bundle = Bundle.create(
        name=name,
        parameters=_parameters(forward, graphs),
        values=_kept(forward, graphs, frozen_bits),
        inputs=_specs(forward.graph.inputs, forward.inputs, limits),
        step_inputs=_step_inputs(graphs, limits),
        label=heads[0].label,
        output=heads[0].output,
        activation=heads[0].activation,
        loss=heads[0].loss,
        more_heads=heads[1:],
        updated=forward.updated,
        seeded=forward.training is not None,
        batch_size=batch_size,
        artifacts=artifacts,
        golden={},
        defaults=DEFAULTS,
        provenance={"edgefl": __version__, **forward.provenance},
        report={
            **make_report(forward, graphs, {**untrained, **bare}).to_json(),
            "lora": [adapter.to_json() for adapter in adapters],
            "targets": target_report,
        },
    )
    tell("computing the golden batch with NumPy")
    examples = None if calibration is None else check_calibration(calibration, bundle.manifest.inputs)
    bundle, goldens = Goldens(examples or {}).smooth(bundle)
    if examples is not None:
        bundle = _with_int8(bundle, examples, [t for t in targets if t in TARGETS], tell)
    for system in _coreml(targets):
        from edgefl.converters.targets.coreml import with_coreml

        bundle = with_coreml(bundle, system, examples, tell)
    if "ort-training" in targets:
        from edgefl.converters.targets.ort_training import with_ort_training

        tell("writing the artifacts of onnxruntime-training")
        bundle = with_ort_training(bundle)
    report = {**bundle.manifest.report, "runs": what_runs(bundle.manifest)}
    _warn(report["untrained"])
    if prove:
        bundle, proof = proving.prove(bundle, goldens, tell)
        report |= {"proof": proof.to_json(), "notes": [*report["notes"], *proof.notes]}
        for note in proof.notes:
            warnings.warn(note, WrongElsewhere, stacklevel=2)
    else:
        report["proof"] = dict(proving.NO_PROOF)
    return replace(bundle, manifest=replace(bundle.manifest, report=report))


def _warn(untrained: Mapping[str, str]) -> None:
    if untrained:
        listed = "; ".join(f"{name}: {why}" for name, why in untrained.items())
        warnings.warn(f"asked to be trained, but not trained: {listed}", NotTrained, stacklevel=3)


def _default_targets() -> tuple[Sequence[str], tuple[str, ...]]:
    """`TARGETS` as far as they can be written here, and a note on what is left out."""
    if not has_tensorflow():
        return TARGETS[:1], (f"no TFLite files: {no_tensorflow()}",)
    return TARGETS, ()


def _check_targets(targets: Sequence[str]) -> None:
    known = (*TARGETS, *MORE_TARGETS)
    unknown = [target for target in targets if target.partition(":")[0] not in known]
    if unknown or not targets or len(_coreml(targets)) > 1:
        raise ConversionError(f"targets {list(targets)}: give one or more of {', '.join(known)}")
    for system in _coreml(targets):
        from edgefl.converters.targets.coreml import check_target

        check_target(system)


def _coreml(targets: Sequence[str]) -> list[str]:
    """The system that `coreml:<system>` names, iOS16 for a plain `coreml`."""
    return [t.partition(":")[2] or "iOS16" for t in targets if t.partition(":")[0] == "coreml"]


def _named(graphs: Graphs) -> dict[str, Graph]:
    named = {"step": graphs.step, "features": graphs.features, "infer": graphs.infer}
    return {kind: graph for kind, graph in named.items() if graph is not None}


def _artifacts(
    graphs: Graphs, targets: Sequence[str], bits: int | None, tell: Stage
) -> tuple[list[ArtifactData], dict[str, dict[str, Any]]]:
    """Every graph for every target, and what each target's writer reports."""
    made, report = [], dict[str, dict[str, Any]]()
    for kind, graph in _named(graphs).items():
        tell(f"writing {kind} for ONNX")
        made.append(onnx_artifact(graph, kind, bits))
        if "tflite" in targets:
            tell(f"writing {kind} for TFLite")
            given = (graphs.step_products or graph) if kind == "step" else graph
            artifact, lite = tflite_artifact(given, kind, bits)
            made.append(artifact)
            report.setdefault("tflite", {})[kind] = lite.to_json()
    if graphs.step_last is not None:
        tell("writing step for ONNX engines that keep channels last")
        made.append(onnx_artifact(graphs.step_last, "step-channels-last", bits))
    return made, report


def _heads(graphs: Graphs) -> list[Head]:
    return [
        Head(
            _spec(term.y, graphs.labels[term.y]),
            _spec(term.gives, graphs.infer.outputs[term.gives]),
            term.text,
            graphs.activations[term.gives],
        )
        for term in graphs.terms
    ]


def _kept(forward: Forward, graphs: Graphs, bits: int | None) -> dict[str, Array]:
    """The values the bundle keeps beside its artifacts: not the frozen weights these hold as integers."""
    return {
        name: value
        for name, value in forward.parameters.items()
        if not bits or graphs.roles[name] != "frozen" or value.size < MIN_SIZE
    }


def _parameters(forward: Forward, graphs: Graphs) -> list[Parameter]:
    return [
        Parameter(name, tuple(value.shape), str(value.dtype), graphs.roles[name])
        for name, value in forward.parameters.items()
    ]


def _spec(name: str, type: TensorType, below: int = 0) -> TensorSpec:
    return TensorSpec(name, type.shape, str(type.dtype), below)


def _specs(
    types: Mapping[str, TensorType], names: Iterable[str], limits: Mapping[str, int]
) -> list[TensorSpec]:
    return [_spec(name, types[name], limits.get(name, 0)) for name in names]


def _step_inputs(graphs: Graphs, limits: Mapping[str, int]) -> list[TensorSpec]:
    others = {*graphs.labels, "weight", SEED, *graphs.roles}
    return _specs(graphs.step.inputs, (n for n in graphs.step.inputs if n not in others), limits)


def _with_int8(bundle: Bundle, examples: Mapping[str, Array], targets: Sequence[str], tell: Stage) -> Bundle:
    from edgefl.converters.targets.int8 import export_int8

    if not targets:
        return bundle
    tell("quantizing")
    made = export_int8(bundle, examples, targets=tuple(targets))
    report = {**bundle.manifest.report, "int8": made.report.to_json()}
    artifacts = _int8_artifacts("infer-int8", made.files.get("onnx"), made.tflite)
    written = {"infer-int8": made.tflite}
    features = int8_features(bundle, examples, targets=tuple(targets))
    if features is not None:
        report["int8_features"] = asdict(features.report)
        artifacts += _int8_artifacts("features-int8", features.onnx, features.tflite)
        written["features-int8"] = features.tflite
    if rows := {kind: model.to_json() for kind, model in written.items() if model}:
        known = report["targets"]
        report["targets"] = {**known, "tflite": {**known.get("tflite", {}), **rows}}
    changed = with_int8_sketches(bundle.with_artifacts(artifacts))
    return replace(changed, manifest=replace(changed.manifest, report=report))


def _int8_artifacts(kind: str, onnx: bytes | None, tflite: TFLiteModel | None) -> list[ArtifactData]:
    artifacts = []
    if onnx is not None:
        artifacts.append(ArtifactData("onnx", kind, onnx))
    if tflite is not None:
        names = differing(tflite.inputs), differing(tflite.outputs)
        artifacts.append(ArtifactData("tflite", kind, tflite.data, *names))
    return artifacts
