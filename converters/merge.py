# SPDX-License-Identifier: Apache-2.0
"""A bundle with its LoRA factors folded into the weights they stand beside, for deployment.

In the graph of `infer` the factors become constants, `x A B s` becomes `x (s A B)`, and this product is added
to the weight of the operator it stands beside, whatever conversion has made of that weight. What comes out
is compared with what went in before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgefl.bundle import Bundle
from edgefl.converters.adapters import Adapter, factors, merge, of_manifest, product
from edgefl.converters.artifacts import onnx_artifact, tflite_artifact
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.fold import fold
from edgefl.converters.normalize import simplify
from edgefl.converters.targets.compact import stored_bits
from edgefl.errors import ConversionError
from edgefl.graph import Interpreter, read_onnx
from edgefl.graph.interpreter import execute
from edgefl.graph.model import Array, Attribute, Graph, Node
from edgefl.proof import sketched

_TOLERANCE = 1e-4  # of the largest output


def merge_bundle(bundle: Bundle) -> Bundle:
    """The bundle's model with its present factors in the weights: `infer` for each target, and no step.

    Other trained parameters stay inputs of `infer`. Merged weights are float32 even where the bundle keeps
    frozen weights in few bits: rounding them again would lose what was trained. The rest stays rounded.

    Raises:
        ConversionError: the bundle has no factors or no ONNX graph, or the merged model would not give the
            same outputs.
    """
    manifest = bundle.manifest
    adapters = of_manifest(manifest)
    if not adapters:
        raise ConversionError(
            f"bundle {manifest.name!r} has no LoRA factors to merge; it was not converted with "
            "trainable='lora:rank=R'"
        )
    if manifest.find("onnx", "infer") is None:
        raise ConversionError(
            f"bundle {manifest.name!r} has no artifact onnx/infer to merge in: give the whole bundle, not a "
            "device's slice"
        )
    values = bundle.parameters()
    before = read_onnx(bundle.artifact("onnx", "infer"))
    merged = merge(values, adapters)
    given = {name: values[name] for name in factors(adapters) if name in before.inputs}
    after = simplify(fold(_Merging(_unpacked(before), given).graph(), [s.name for s in manifest.inputs]))
    _check_same(bundle, before, after, values, merged)
    return _rewritten(bundle, after, merged, adapters, stored_bits(before))


def _unpacked(graph: Graph) -> Graph:
    """The graph with all that depends on constants alone computed, however large."""
    constants, kept = dict(graph.constants), []
    for node in graph:
        if all(t in constants for t in node.inputs if t):
            constants.update(zip(node.outputs, execute(node, constants), strict=False))
        else:
            kept.append(node)
    return replace(graph, nodes=tuple(kept), constants=constants)


@dataclass(frozen=True, eq=False)
class _Linear:
    """What an operator with a known weight makes of a tensor."""

    op: str
    data: str
    weight: Array
    attributes: Mapping[str, Attribute]

    def add(self, b: GraphBuilder) -> str:
        weight = b.constant(self.weight)
        inputs = (weight, self.data) if self.op == "Gather" else (self.data, weight)
        return b.add(self.op, *inputs, **self.attributes)  # type: ignore[arg-type, return-value]


class _Merging:
    """A graph added to a builder node by node, with products of factors put into the weights beside them."""

    def __init__(self, graph: Graph, factors: Mapping[str, Array]) -> None:
        self._source, self._values = graph, factors
        self._builder = GraphBuilder()
        self._factors: set[str] = set()
        self._thin: dict[str, _Linear] = {}  # products with a first factor
        self._wide: dict[str, _Linear] = {}  # products with both

    def graph(self) -> Graph:
        b, source = self._builder, self._source
        data = {name: type for name, type in source.inputs.items() if name not in self._values}
        tensors = {name: b.input(name, type) for name, type in data.items()}
        tensors.update({name: b.constant(value) for name, value in self._values.items()})
        self._factors.update(tensors[name] for name in self._values)
        tensors.update({name: b.constant(value) for name, value in source.constants.items()})
        for node in source:
            inputs = [tensors[t] if t else "" for t in node.inputs]
            made = self._merged(node, inputs) or b.add(
                node.op, *inputs, outputs=len(node.outputs), name=node.name, **node.attributes
            )
            tensors.update(zip(node.outputs, (made,) if isinstance(made, str) else made, strict=True))
        for name in source.outputs:
            b.output(name, tensors[name])
        return b.build(source.name)

    def _merged(self, node: Node, inputs: Sequence[str]) -> str | None:
        """What replaces a node; None where it stays."""
        if node.op in ("MatMul", "Conv", "Gather"):
            return self._product(node, inputs)
        if node.op in ("Mul", "Add"):
            for x, other in (tuple(inputs), tuple(inputs)[::-1]):
                if x in self._wide:
                    return (self._scaled if node.op == "Mul" else self._sum)(self._wide[x], other)
        return None

    def _product(self, node: Node, inputs: Sequence[str]) -> str | None:
        linear = self._linear(node, inputs)
        if linear is None:
            return None
        first = self._thin.get(linear.data)
        if first is not None and node.op != "Gather":
            return self._widened(replace(first, weight=product(first.op, first.weight, linear.weight)))
        made = linear.add(self._builder)
        if self._factors.intersection(inputs):
            self._thin[made] = linear
        return made

    def _linear(self, node: Node, inputs: Sequence[str]) -> _Linear | None:
        """The node, where it multiplies by a known weight."""
        data, weight = (inputs[1], inputs[0]) if node.op == "Gather" else inputs[:2]
        value = self._builder.value(weight)
        matches = value is not None and len(inputs) == 2 and (value.ndim == 2 or node.op == "Conv")
        return _Linear(node.op, data, value, node.attributes) if matches and value is not None else None

    def _scaled(self, linear: _Linear, other: str) -> str | None:
        factor = self._builder.value(other)
        return None if factor is None or factor.size > 1 else self._widened(linear, factor=factor)

    def _sum(self, linear: _Linear, other: str) -> str | None:
        """One product with the sum of both weights, where the other summand is the same of the same data."""
        maker = self._builder.producer(other)
        beside = self._linear(maker, maker.inputs) if maker and maker.op == linear.op else None
        if beside is None or (beside.data, beside.attributes) != (linear.data, linear.attributes):
            return None
        if beside.weight.shape != linear.weight.shape:
            return None
        return replace(linear, weight=beside.weight + linear.weight).add(self._builder)

    def _widened(self, linear: _Linear, factor: Array | None = None) -> str:
        if factor is not None:
            linear = replace(linear, weight=linear.weight * factor.reshape(()))
        made = linear.add(self._builder)
        self._wide[made] = linear
        return made


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
                f"merging would change {name!r} by {worst:.2g}, more than rounding does; the trained factors "
                "may be too large for float32"
            )


def _rewritten(
    bundle: Bundle, infer: Graph, values: Mapping[str, Array], adapters: Sequence[Adapter], bits: int | None
) -> Bundle:
    manifest = bundle.manifest
    gone = set(factors(adapters))
    report = {key: value for key, value in manifest.report.items() if key in ("notes", "parameters")}
    artifacts = [onnx_artifact(infer, "infer", bits)]
    if manifest.find("tflite", "infer"):
        artifacts.append(tflite_artifact(infer, "infer", bits)[0])
    made = Bundle.create(
        name=manifest.name,
        parameters=[p for p in manifest.parameters if p.name not in gone],
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
        provenance={**manifest.provenance, "merged": ", ".join(a.weight for a in adapters)},
        report={**report, "operators": {"infer": infer.operators()}},
        model_version=manifest.model_version,
    )
    return sketched(made)
