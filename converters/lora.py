# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: a weight stays frozen and gets a trained product of two thin factors beside it.

LoRA (Hu et al., 2021, arXiv:2106.09685). The adapted layer computes `layer(x) + s up(down(x))`, so the full
weight's gradient is never formed. The factors are ordinary parameters, `<weight>.lora_a` and `.lora_b`.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from edgefl.converters.adapters import Adapter, Layout, factors
from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.selection import UNTRAINED, Selection, chosen
from edgefl.converters.sources.forward import Forward
from edgefl.errors import SelectionError
from edgefl.graph.model import Array, Graph, Node, TensorType

_FORM = "lora:rank=R[:alpha=A][:pattern...]"
_ALL = ("*",)
_BARE = "factors stand beside weights that one dense layer, convolution of one group or embedding reads"


@dataclass(frozen=True)
class Plan:
    """What `lora:rank=R[:alpha=A][:pattern...]` asks for.

    Attributes:
        rank: columns of the first factor, rows of the second.
        alpha: the product of the factors counts `alpha / rank` times; the rank where it is not given.
        patterns: weights that match one of them get factors; all where none is given.
    """

    rank: int
    alpha: float
    patterns: tuple[str, ...]

    def names(self, weight: str) -> bool:
        """Whether a pattern matches the name."""
        return any(fnmatchcase(weight, pattern) for pattern in self.patterns)


def adapt(forward: Forward, spec: Selection) -> tuple[Forward, Selection, tuple[Adapter, ...]]:
    """Apply the `lora:` part of a selection, if it has one.

    Args:
        forward: a model in normalised operators.
        spec: as for `select`; one of its patterns may be `lora:rank=R[:alpha=A][:pattern...]`.

    Returns:
        The model with factors added, a selection of all that is trained, and the adapters; the model and
        selection as given and no adapters when there is nothing to do. What the other patterns train in
        full, or leave out with `!`, has no factors.

    Raises:
        SelectionError: the form is wrong, or no dense, convolution or embedding weight matches.
    """
    plan, rest = _parts(spec)
    if plan is None:
        return forward, spec, ()
    names = {**dict.fromkeys(forward.parameters, ""), **forward.aliases}
    candidates = [name for name in forward.parameters if name in forward.trainable]
    others = [p for p in rest if not p.startswith("!")], [p[1:] for p in rest if p.startswith("!")]
    full, left = (chosen(candidates, patterns, names) if patterns else [] for patterns in others)
    full = [name for name in full if name not in left]
    wanted = [
        name
        for name in candidates
        if plan.names(name) and name not in {*full, *left} and forward.parameters[name].ndim > 1
    ]
    adapted, adapters = _Adaptation(forward, plan, wanted).result()
    return adapted, frozenset([*factors(adapters), *full]).__contains__, adapters


def told(
    forward: Forward, spec: Selection, adapters: Sequence[Adapter], trained: Collection[str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What a `lora:` selection does beyond the factors, for the report.

    Args:
        forward: the adapted model.
        spec: the selection as the user gave it.
        adapters: what `adapt` gave.
        trained: names of all parameters that are trained.

    Returns:
        Notes, and by name why weights that a pattern names have no factors.

    Raises:
        SelectionError: a weight has factors and is trained in full as well, as a personal one.
    """
    plan, _ = _parts(spec)
    if plan is None:
        return (), {}
    both = [a.weight for a in adapters if a.weight in trained]
    if both:
        raise SelectionError(
            f"{', '.join(both)}: personal, and so trained in full, but beside LoRA factors too; leave the "
            f"factors away with {','.join(f'!{name}' for name in both)!r} behind the pattern"
        )
    made = {*factors(adapters), *(a.weight for a in adapters)}
    full = [name for name in trained if name not in made]
    bare = {
        name: _BARE if name in forward.trainable else UNTRAINED
        for name, value in forward.parameters.items()
        if name not in made | {*trained} | forward.buffers and value.ndim > 1 and plan.names(name)
    }
    notes = []
    if full:
        notes.append(
            f"trained in full beside the LoRA factors: {', '.join(full)}; for factors instead, put their "
            "patterns behind lora: with colons between (lora:rank=4:*query*:*value*)"
        )
    if bare and plan.patterns == _ALL:
        notes.append(f"frozen and without LoRA factors: {', '.join(bare)}; {_BARE}")
        bare = {}
    return tuple(notes), bare


def _parts(spec: Selection) -> tuple[Plan | None, list[str]]:
    """The `lora:` part of a selection, and the other patterns."""
    if callable(spec):
        return None, []
    patterns = [p.strip() for p in (spec.split(",") if isinstance(spec, str) else spec)]
    plans = [_plan(p) for p in patterns if p.startswith("lora:")]
    if len(plans) > 1:
        raise SelectionError(f"{spec!r} has more than one part {_FORM}; give one with all patterns")
    return (plans[0] if plans else None), [p for p in patterns if not p.startswith("lora:")]


def _plan(text: str) -> Plan:
    settings, patterns = dict[str, str](), list[str]()
    for part in text.split(":")[1:]:
        key, equals, value = part.partition("=")
        if equals and key in ("rank", "alpha"):
            settings[key] = value
        else:
            patterns.append(part)
    try:
        rank = int(settings["rank"])
        plan = Plan(rank, float(settings.get("alpha", rank)), tuple(patterns) or _ALL)
    except (KeyError, ValueError) as exc:
        raise SelectionError(f"{text!r} is not of the form {_FORM} with numbers R and A") from exc
    if rank < 1:
        raise SelectionError(f"{text!r}: the rank has to be at least 1")
    if not 0 < plan.alpha < np.inf:
        raise SelectionError(f"{text!r}: alpha has to be a number over 0")
    return plan


class _Adaptation:
    def __init__(self, forward: Forward, plan: Plan, wanted: Sequence[str]) -> None:
        self._forward, self._plan, self._wanted = forward, plan, wanted
        self._builder = GraphBuilder()
        self._values: dict[str, Array] = {}
        self._adapters: list[Adapter] = []

    def result(self) -> tuple[Forward, tuple[Adapter, ...]]:
        forward, graph = self._forward, self._forward.graph
        places = _places(graph, self._wanted)
        if not places:
            some = ", ".join(list(forward.parameters)[:8])
            raise SelectionError(
                "no weight of a dense layer, convolution or embedding that is not trained in full matches "
                f"{':'.join(self._plan.patterns)!r}; parameters are {some}..."
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
        again = _Adaptation(self._forward, self._plan, self._wanted)
        found = _places(graph, list(dict.fromkeys(place.weight for place in places.values())))
        rebuilt = again._rebuilt(graph, found)
        if sorted(map(str, again._adapters)) != sorted(map(str, self._adapters)):
            raise SelectionError("a weight is used in training otherwise than at inference; leave it out")
        return rebuilt

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
    """Where a weight is used: the operand it is, and the way from parameter to operand."""

    weight: str
    operand: int
    layout: Layout


def _places(graph: Graph, names: Sequence[str]) -> dict[str, _Place]:
    """The first output of each node that a low-rank product can stand beside, with the weight it uses."""
    readers = graph.consumers()
    found = (_place(graph, readers, name) for name in names)
    return dict(pair for pair in found if pair)


def _place(graph: Graph, readers: Mapping[str, list[Node]], name: str) -> tuple[str, _Place] | None:
    tensor, layout = name, Layout()
    while len(readers.get(tensor, [])) == 1:
        (node,) = readers[tensor]
        if node.op in ("Transpose", "Reshape") and node.inputs[0] == tensor:
            tensor = node.outputs[0]
            sizes = graph.type_of(tensor).shape if node.op == "Reshape" else node.attributes["perm"]
            layout = (*layout, (node.op, tuple(int(n) for n in np.asarray(sizes))))
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
