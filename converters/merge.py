# SPDX-License-Identifier: Apache-2.0
"""A bundle with its LoRA factors folded into the weights they stand beside, for deployment.

In the graph of `infer` each adapted weight is replaced by what it amounts to, and its factors by zero;
products with zero then vanish. What comes out is compared with what went in before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from edgefl.bundle import ArtifactData, Bundle
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.graft import bind
from edgefl.converters.lora import Adapter, merge
from edgefl.converters.normalize import simplify
from edgefl.converters.normalize.registry import Rewrite, keep, replay
from edgefl.converters.targets import to_onnx, to_tflite
from edgefl.errors import ConversionError
from edgefl.graph import Interpreter, read_onnx
from edgefl.graph.model import Array, Graph, Node

_TOLERANCE = 1e-4  # of the largest output


def merge_bundle(bundle: Bundle) -> Bundle:
    """The bundle's model with its present factors in the weights: `infer` for each target, and no step.

    Other trained parameters stay inputs of `infer`.

    Raises:
        ConversionError: the bundle has no factors, its weights are not stored in full, or the merged model
            would not give the same outputs.
    """
    adapters = [Adapter.from_json(row) for row in bundle.manifest.report.get("lora", ())]
    if not adapters:
        raise ConversionError(
            f"bundle {bundle.manifest.name!r} has no LoRA factors to merge; it was not converted with "
            "trainable='lora:rank=R'"
        )
    values = bundle.parameters()
    missing = [a.weight for a in adapters if a.weight not in values]
    if missing:
        raise ConversionError(
            f"bundle {bundle.manifest.name!r} does not hold {', '.join(missing)}: give the whole bundle, "
            "not a device's slice or one with frozen_bits"
        )
    before = read_onnx(bundle.artifact("onnx", "infer"))
    merged = merge(values, adapters)
    after = _merged_graph(before, adapters, values, merged)
    _check_same(bundle, before, after, values, merged)
    return _rewritten(bundle, after, merged, [a.weight for a in adapters])


def _merged_graph(
    graph: Graph, adapters: Sequence[Adapter], values: Mapping[str, Array], merged: Mapping[str, Array]
) -> Graph:
    constants = dict(graph.constants)
    for adapter in adapters:
        constants |= _replaced(graph, adapter.weight, values[adapter.weight], merged[adapter.weight])
    factors = {name: np.zeros_like(values[name]) for a in adapters for name in (a.down, a.up)}
    bound = bind(replace(graph, constants=constants), factors)
    return simplify(replay(bound, _VANISHING))


def _replaced(graph: Graph, name: str, old: Array, new: Array) -> dict[str, Array]:
    """The constants that hold a weight in some order of its axes, with the new values in that order."""
    found = {}
    for tensor, value in graph.constants.items():
        for order in permutations(range(old.ndim)) if value.size == old.size else ():
            if np.array_equal(value, old.transpose(order)):
                found[tensor] = np.ascontiguousarray(new.transpose(order))
                break
    if not found:
        raise ConversionError(
            f"weight {name!r} is not in the infer graph as it is; it cannot be merged there"
        )
    return found


# -- what multiplies by zero


def _product(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    """Zeros where an operand is zero; the type comes from the node, which then has no reader."""
    made = keep(b, node, inputs)
    if isinstance(made, str) and any(_is_zero(b, t) for t in inputs[:2]):
        type = b.type(made)
        return b.constant(np.zeros(type.shape, type.dtype))
    return made[0] if isinstance(made, tuple) and len(made) == 1 else made


def _sum(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    shape = np.broadcast_shapes(*(b.shape(t) for t in inputs))
    for x, other in (tuple(inputs), tuple(inputs)[::-1]):
        if _is_zero(b, other) and b.shape(x) == shape:
            return x
    return keep(b, node, inputs)


def _is_zero(b: GraphBuilder, tensor: str) -> bool:
    value = b.value(tensor)
    return value is not None and not value.any()


_VANISHING: dict[str, Rewrite] = {
    **dict.fromkeys(("MatMul", "Conv", "ConvTranspose", "Mul"), _product),
    "Add": _sum,
}


# -- the bundle


def _check_same(
    bundle: Bundle, before: Graph, after: Graph, values: Mapping[str, Array], merged: Mapping[str, Array]
) -> None:
    golden = bundle.golden()
    one = Interpreter(before)({n: golden[n] if n in golden else values[n] for n in before.inputs})
    two = Interpreter(after)({n: golden[n] if n in golden else merged[n] for n in after.inputs})
    for name, value in one.items():
        worst = float(np.abs(value - two[name]).max(initial=0))
        if not worst <= _TOLERANCE * max(float(np.abs(value).max(initial=0)), 1e-6):
            raise ConversionError(
                f"merging would change {name!r} by {worst:.2g}: a weight is used by other layers too"
            )


def _rewritten(bundle: Bundle, infer: Graph, values: Mapping[str, Array], weights: Sequence[str]) -> Bundle:
    manifest = bundle.manifest
    report = {key: value for key, value in manifest.report.items() if key in ("notes", "parameters")}
    artifacts = [ArtifactData("onnx", "infer", to_onnx(infer))]
    if manifest.find("tflite", "infer"):
        lite = to_tflite(infer, "infer")
        names = [{n: own for n, own in table.items() if n != own} for table in (lite.inputs, lite.outputs)]
        artifacts.append(ArtifactData("tflite", "infer", lite.data, *names))
    return Bundle.create(
        name=manifest.name,
        parameters=[p for p in manifest.parameters if p.name in values],
        values=values,
        inputs=manifest.inputs,
        step_inputs=manifest.inputs,
        label=manifest.label,
        output=manifest.output,
        activation=manifest.activation,
        loss=manifest.loss,
        more_heads=manifest.more_heads,
        updated=manifest.updated,
        batch_size=manifest.batch_size,
        artifacts=artifacts,
        golden=bundle.golden(),
        defaults=manifest.defaults,
        provenance={**manifest.provenance, "merged": ", ".join(weights)},
        report={**report, "operators": {"infer": infer.operators()}},
        model_version=manifest.model_version,
    )
