# SPDX-License-Identifier: Apache-2.0
"""The Core ML target: any of edgefl's graphs as an ML Program in a package."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefl.converters.targets.compact import stored_bits
from edgefl.converters.targets.coreml import package, precision
from edgefl.converters.targets.coreml.border import Border
from edgefl.converters.targets.quiet import quiet
from edgefl.converters.targets.tflite import safe_names
from edgefl.converters.weights import Packed
from edgefl.errors import ConversionError, MissingDependency, UnsupportedOperator
from edgefl.graph import Graph
from edgefl.graph.interpreter import settled

TARGETS = ("iOS16", "iOS17", "iOS18")
"""Deployment targets; macOS 13, 14 and 15 run the same files."""

BLOCKS_FROM = "iOS18"
"""The first target that holds weights in blocks with a scale each, and so weights of four bits."""

_RESERVED = {
    *(
        "any",
        "bool",
        "program",
        "func",
        "tensor",
        "list",
        "dict",
        "tuple",
        "true",
        "false",
        "string",
        "state",
    ),
    *(
        "bf16",
        "fp16",
        "fp32",
        "fp64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    ),
}
"""Words of the MIL language."""

_CLEAN = (
    "common::noop_elimination",
    "common::dead_code_elimination",
    "common::const_elimination",
    "common::remove_redundant_ops",
    "common::const_deduplication",
    "common::dead_code_elimination",
)
_HALF = (
    "common::fuse_elementwise_to_batchnorm",  # in float16 it fails, and compression runs it
    "common::dedup_op_and_var_names",
    "common::add_fp16_cast",
    "common::cast_optimization",
    "common::const_elimination",
    "common::remove_redundant_ops",
    "common::const_deduplication",
    "common::dead_code_elimination",
)


@dataclass(frozen=True)
class CoreMLModel:
    """A converted graph.

    Attributes:
        data: the package as a ZIP; equal for equal graphs.
        inputs, outputs: contract name to Core ML's name, in the graph's order.
        operators: MIL operator to number of uses, constants left out.
        half_operators: those among them that give float16.
        target: the oldest system that runs it, such as `iOS16`.
        scale: the loss scale inside; 1 for float32.
        note: what of the graph the file does not keep.
    """

    data: bytes
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: Mapping[str, int] = field(default_factory=dict)
    half_operators: Mapping[str, int] = field(default_factory=dict)
    target: str = TARGETS[0]
    scale: float = 1.0
    note: str = ""


def to_coreml(
    graph: Graph,
    kind: str,
    *,
    target: str = TARGETS[0],
    half: bool = False,
    scale: float = 1.0,
    ranges: Mapping[str, float] | None = None,
) -> CoreMLModel:
    """Convert a graph to an ML Program.

    Inputs and outputs are float32 or int32 arrays of one to five axes: 64-bit integers and truth values come
    and go as int32, a scalar has one axis. Weights that the graph stores in eight or four bits stay so small,
    four bits from iOS 18.

    Args:
        kind: the package's name, such as `step`.
        target: one of `TARGETS`.
        half: compute in float16 what `precision.KEPT` does not keep in float32; weights inside follow.
        scale: loss scale of a step in float16.
        ranges: tensor to its largest magnitude: products with constant weights read it rounded to int8; from
            iOS 17.

    Raises:
        UnsupportedOperator: a node has no counterpart in Core ML; the message names it.
        ConversionError: coremltools refuses the program, or the target is unknown.
        MissingDependency: coremltools is not installed.
    """
    check_target(target)
    with quiet("coremltools"):
        ct = import_coremltools()
        inputs, outputs = border_names(graph.inputs, graph.outputs)
        program = _traced(ct, graph, inputs, outputs, target, scale, ranges or {})
        weights = _rounded_weights(program, stored_bits(graph))
        chosen = ct.precision.FLOAT32
        if half:
            chosen = ct.transform.FP16ComputePrecision(op_selector=precision.in_half(set(outputs.values())))
        data = _saved(ct, program, kind, target, chosen, _description(kind, half, scale), weights)
        spec = package.load(data)
    counts, half_counts = package.operators(spec), package.operators(spec, "float16")
    return CoreMLModel(data, inputs, outputs, counts, half_counts, target, scale, _note(weights, target))


def check_target(target: str) -> None:
    """Raises ConversionError for an unknown deployment target."""
    if target not in TARGETS:
        raise ConversionError(f"Core ML deployment target {target!r}: there are {', '.join(TARGETS)}")


def import_coremltools() -> Any:
    """coremltools; call it within `quiet`, since importing it comments on other packages."""
    try:
        import coremltools
    except ImportError as exc:
        raise MissingDependency("coremltools", "coreml", "the Core ML target") from exc
    return coremltools


def border_names(inputs: Iterable[str], outputs: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Names of letters, digits and underscores for inputs and outputs, all distinct."""
    ins, outs = list(inputs), list(outputs)
    wanted = [*ins, *(f"{name}/out" if name in ins else name for name in outs)]
    safe = safe_names(f"{name}/tensor" if name in _RESERVED else name for name in wanted)
    own = list(safe.values())
    return dict(zip(ins, own, strict=False)), dict(zip(outs, own[len(ins) :], strict=True))


def _traced(
    ct: Any,
    graph: Graph,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    target: str,
    scale: float,
    ranges: Mapping[str, float],
) -> Any:
    from edgefl.converters.targets.coreml.lowering import trace

    prepared = settled(precision.scaled(graph, scale) if scale != 1 else graph)
    divided = {name: scale if name.startswith("grad/") else 1.0 for name in graph.outputs}
    try:
        return trace(
            prepared,
            {name: Border.of(own, graph.inputs[name]) for name, own in inputs.items()},
            {name: Border.of(own, graph.outputs[name], divided[name]) for name, own in outputs.items()},
            getattr(ct.target, target),
            ranges,
        )
    except UnsupportedOperator:
        raise
    except (ValueError, TypeError, AttributeError, NotImplementedError, RuntimeError) as exc:
        raise ConversionError(f"coremltools cannot build graph {graph.name!r}: {exc}") from exc


def _rounded_weights(program: Any, bits: int | None) -> Mapping[Any, Packed]:
    from edgefl.converters.targets.coreml.lowering.storage import rounded_weights

    return rounded_weights(program, bits) if bits else {}


def _note(weights: Mapping[Any, Packed], target: str) -> str:
    if target == BLOCKS_FROM or not any(weight.bits == 4 for weight in weights.values()):
        return ""
    return f"frozen weights of 4 bits are floats here; {BLOCKS_FROM} keeps them small"


def _saved(
    ct: Any,
    program: Any,
    kind: str,
    target: str,
    chosen: Any,
    description: str,
    weights: Mapping[Any, Packed],
) -> bytes:
    """Run coremltools' passes and save; its errors come out as edgefl's."""
    passes = _passes(ct, chosen, target, weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{kind}.mlpackage"
        try:
            ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=getattr(ct.target, target),
                compute_precision=chosen,
                pass_pipeline=passes,
                skip_model_load=True,
                package_dir=str(path),
            )
        except Exception as exc:  # coremltools' exceptions share no base class
            raise ConversionError(f"coremltools refuses graph {kind!r}: {exc}") from exc
        return package.pack_package(path, kind, description)


def _passes(ct: Any, chosen: Any, target: str, weights: Mapping[Any, Packed]) -> Any:
    names = [*_CLEAN, *(() if chosen is ct.precision.FLOAT32 else _HALF)]
    if not weights:
        return ct.PassPipeline(names, "edgefl")
    from edgefl.converters.targets.coreml.lowering.storage import PASS

    passes = ct.PassPipeline([*names, PASS, "common::dead_code_elimination"], "edgefl")
    passes.set_options(PASS, {"weights": weights, "blocks": target == BLOCKS_FROM})
    return passes


def _description(kind: str, half: bool, scale: float) -> str:
    precise = f"float16, loss scale {scale:g}" if half and scale != 1 else "float16" if half else "float32"
    return f"edgefl {kind}, {precise}"
