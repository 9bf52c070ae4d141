# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: a weight stays frozen and gets a trained product of two thin factors beside it.

LoRA (Hu et al., 2021, arXiv:2106.09685). The adapted layer computes `layer(x) + s up(down(x))`, so the full
weight's gradient is never formed. The factors are ordinary parameters, `<weight>.lora_a` and `.lora_b`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.selection import Selection
from edgefl.converters.sources.forward import Forward
from edgefl.errors import SelectionError
from edgefl.graph.model import Array, Graph, Node, TensorType

_FORM = "lora:rank=R[:alpha=A][:pattern]"


@dataclass(frozen=True)
class Plan:
    """What `lora:rank=R[:alpha=A][:pattern]` asks for; `alpha` is the rank where it is not given."""

    rank: int
    alpha: float
    pattern: str


@dataclass(frozen=True)
class Adapter:
    """An adapted weight.

    Attributes:
        weight: the frozen parameter.
        down: the factor applied to the layer's input.
        up: the factor applied to what `down` gives, zero at first.
        scale: `alpha / rank`.
        kind: the operator the weight belongs to: `MatMul`, `Conv` or `Gather`.
        layout: permutation from the parameter's axes to the operator's, such as `(1, 0)`.
    """

    weight: str
    down: str
    up: str
    scale: float
    kind: str
    layout: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain strings, numbers and lists."""
        return {**asdict(self), "layout": list(self.layout)}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Adapter:
        return Adapter(**{**plain, "layout": tuple(plain["layout"])})

    def merged(self, parameters: Mapping[str, Array]) -> Array:
        """The weight with the adapter folded in, in the parameter's own layout."""
        weight, down, up = (parameters[name] for name in (self.weight, self.down, self.up))
        if self.kind == "Conv":
            product = up.reshape(up.shape[:2]) @ down.reshape(down.shape[0], -1)
            delta = product.reshape(up.shape[0], *down.shape[1:])
        else:
            delta = down @ up
        return np.asarray(weight + self.scale * delta.transpose(np.argsort(self.layout)), weight.dtype)


def merge(parameters: Mapping[str, Array], adapters: Sequence[Adapter]) -> dict[str, Array]:
    """The parameters without factors, each adapted weight replaced by what it amounts to."""
    factors = {name for a in adapters for name in (a.down, a.up)}
    merged = {a.weight: a.merged(parameters) for a in adapters}
    return {name: merged.get(name, value) for name, value in parameters.items() if name not in factors}


def adapt(forward: Forward, spec: Selection) -> tuple[Forward, Selection, tuple[Adapter, ...]]:
    """Apply the `lora:` part of a selection, if it has one.

    Args:
        forward: a model in normalised operators.
        spec: as for `select`; one of its patterns may be `lora:rank=R[:alpha=A][:pattern]`.

    Returns:
        The model with factors added, the selection with that part replaced by the factors' names, and
        the adapters; the model and selection as given and no adapters when there is nothing to do.

    Raises:
        SelectionError: the form is wrong, or no dense, convolution or embedding weight matches.
    """
    if callable(spec):
        return forward, spec, ()
    patterns = spec.split(",") if isinstance(spec, str) else list(spec)
    plans = [_plan(p.strip()) for p in patterns if p.strip().startswith("lora:")]
    if not plans:
        return forward, spec, ()
    if len(plans) > 1:
        raise SelectionError(f"{spec!r} has more than one part {_FORM}; give one with a wider pattern")
    adapted, adapters = _Adaptation(forward, plans[0]).result()
    factors = [name for a in adapters for name in (a.down, a.up)]
    rest = [p.strip() for p in patterns if not p.strip().startswith("lora:")]
    return adapted, [*factors, *rest], adapters


def _plan(text: str) -> Plan:
    settings, pattern = dict[str, str](), "*"
    for part in text.split(":")[1:]:
        key, equals, value = part.partition("=")
        if equals and key in ("rank", "alpha"):
            settings[key] = value
        else:
            pattern = part
    try:
        rank = int(settings["rank"])
        plan = Plan(rank, float(settings.get("alpha", rank)), pattern)
    except (KeyError, ValueError) as exc:
        raise SelectionError(f"{text!r} is not of the form {_FORM} with numbers R and A") from exc
    if rank < 1:
        raise SelectionError(f"{text!r}: the rank has to be at least 1")
    return plan


class _Adaptation:
    def __init__(self, forward: Forward, plan: Plan) -> None:
        self._forward, self._plan = forward, plan
        self._builder = GraphBuilder()
        self._values: dict[str, Array] = {}
        self._adapters: list[Adapter] = []

    def result(self) -> tuple[Forward, tuple[Adapter, ...]]:
        forward, graph = self._forward, self._forward.graph
        places = _places(graph, [n for n in forward.parameters if self._is_wanted(n)])
        if not places:
            raise SelectionError(
                f"no weight of a dense layer, convolution or embedding matches {self._plan.pattern!r}; "
                f"parameters are {', '.join(list(forward.parameters)[:8])}..."
            )
        adapted = replace(
            forward,
            graph=self._rebuilt(graph, places),
            training=forward.training and self._in_training(forward.training, places),
            parameters={**forward.parameters, **self._values},
            trainable=forward.trainable | self._values.keys(),
            provenance={**forward.provenance, "lora": f"rank {self._plan.rank}, alpha {self._plan.alpha:g}"},
        )
        return adapted, tuple(self._adapters)

    def _in_training(self, graph: Graph, places: Mapping[str, _Place]) -> Graph:
        """The same adapters beside the same weights of the training graph."""
        again = _Adaptation(self._forward, self._plan)
        found = _places(graph, list(dict.fromkeys(place.weight for place in places.values())))
        rebuilt = again._rebuilt(graph, found)
        if sorted(map(str, again._adapters)) != sorted(map(str, self._adapters)):
            raise SelectionError("a weight is used in training otherwise than at inference; leave it out")
        return rebuilt

    def _is_wanted(self, name: str) -> bool:
        return name in self._forward.trainable and fnmatchcase(name, self._plan.pattern)

    def _rebuilt(self, graph: Graph, places: Mapping[str, _Place]) -> Graph:
        b = self._builder
        tensors = {name: b.input(name, type) for name, type in graph.inputs.items()}
        tensors.update({name: b.constant(value) for name, value in graph.constants.items()})
        for node in graph:
            inputs = [tensors[t] if t else "" for t in node.inputs]
            made = b.add(node.op, *inputs, outputs=len(node.outputs), name=node.name, **node.attributes)
            outputs = (made,) if isinstance(made, str) else made
            if node.outputs[0] in places:
                place = places[node.outputs[0]]
                outputs = (self._beside(place, node, [Expr(b, t) for t in inputs], Expr(b, outputs[0])).name,)
            tensors.update(zip(node.outputs, outputs, strict=True))
        for name in graph.outputs:
            b.output(name, tensors[name])
        return b.build(graph.name)

    def _beside(self, place: _Place, node: Node, inputs: Sequence[Expr], output: Expr) -> Expr:
        weight = inputs[place.operand].shape
        first, second = _factor_shapes(node.op, weight, self._plan.rank)
        down, up = self._factor(place.weight, "lora_a", first), self._factor(place.weight, "lora_b", second)
        scale = self._plan.alpha / self._plan.rank
        self._adapters.append(Adapter(place.weight, down.name, up.name, scale, node.op, place.layout))
        if node.op == "MatMul":
            return output + (inputs[0] @ down) @ up * scale
        if node.op == "Gather":
            return output + down.apply("Gather", inputs[1], axis=0) @ up * scale
        thin = inputs[0].apply("Conv", down, **node.attributes)
        return output + thin.apply("Conv", up, kernel_shape=(1,) * (up.rank - 2)) * scale

    def _factor(self, weight: str, suffix: str, shape: tuple[int, ...]) -> Expr:
        name = f"{weight}.{suffix}"
        value = np.zeros(shape, np.float32)
        if suffix == "lora_a":
            random = np.random.default_rng(zlib.crc32(name.encode()))
            value = (random.standard_normal(shape) / np.sqrt(value.size / self._plan.rank)).astype(np.float32)
        self._values[name] = value
        return Expr(self._builder, self._builder.input(name, TensorType.of(value)))


@dataclass(frozen=True)
class _Place:
    """Where a weight is used: the operand it is, and the permutation from parameter to operand."""

    weight: str
    operand: int
    layout: tuple[int, ...]


def _places(graph: Graph, names: Sequence[str]) -> dict[str, _Place]:
    """The first output of each node that a low-rank product can stand beside, with the weight it uses."""
    readers = graph.consumers()
    found = (_place(graph, readers, name) for name in names)
    return dict(pair for pair in found if pair)


def _place(graph: Graph, readers: Mapping[str, list[Node]], name: str) -> tuple[str, _Place] | None:
    tensor, layout = name, tuple(range(len(graph.type_of(name).shape)))
    while len(readers.get(tensor, [])) == 1:
        (node,) = readers[tensor]
        if node.op == "Transpose":
            perm = tuple(int(p) for p in np.asarray(node.attributes["perm"]))
            tensor, layout = node.outputs[0], tuple(layout[p] for p in perm)
            continue
        operand = 0 if node.op == "Gather" else 1
        if _fits(graph, node, tensor, operand):
            return node.outputs[0], _Place(name, operand, layout)
        break
    return None


def _fits(graph: Graph, node: Node, tensor: str, operand: int) -> bool:
    if node.op not in ("MatMul", "Conv", "Gather") or node.inputs[operand] != tensor:
        return False
    rank = len(graph.type_of(tensor).shape)
    if node.op == "Conv":
        return node.attributes.get("group", 1) == 1
    return rank == 2 and node.attributes.get("axis", 0) == 0


def _factor_shapes(op: str, weight: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if op == "Conv":
        return (rank, *weight[1:]), (weight[0], rank, *(1,) * (len(weight) - 2))
    return (weight[0], rank), (rank, weight[1])
