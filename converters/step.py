# SPDX-License-Identifier: Apache-2.0
"""From a forward graph, roles and a loss to the graphs a device runs: step, features and infer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgefl.converters.autodiff import Expr, gradients
from edgefl.converters.autodiff.expression import add_all
from edgefl.converters.batch_last import graft_flat, suits
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.fold import fold
from edgefl.converters.graft import bind, graft
from edgefl.converters.losses import LOSSES, Loss, Term, find_loss, weighted_mean
from edgefl.converters.normalize import simplify
from edgefl.converters.postpone import postpone
from edgefl.converters.precision import FULL, Precision
from edgefl.converters.sources.forward import Forward
from edgefl.converters.split import Cut, find_cut
from edgefl.converters.training import BUFFER, SEED
from edgefl.errors import ConversionError, SelectionError
from edgefl.graph.model import Graph, Node, TensorType
from edgefl.parameters import Role

_PROBABILITIES = ("Softmax", "LogSoftmax", "Sigmoid")
_MOVES = ("Reshape", "Transpose", "Identity")


@dataclass(frozen=True, eq=False)
class Graphs:
    """What a model becomes.

    Attributes:
        step: data inputs (or what `features` gives), `y`, `weight`, trained parameters, and with a training
            graph `seed` and updated buffers -> `loss`, `grad/<name>`, `buffer/<name>`.
        step_last: the same step with data moved as engines like it that keep channels last; None where
            nothing is convolved.
        step_products: the same step for a writer that makes products of convolutions itself; None likewise.
        features: data inputs -> the step's data inputs; None where no frozen prefix is worth a cut.
        infer: data inputs, trained parameters -> `output`, or `output/<name>` where the loss takes several.
        roles: as selected, except that parameters the loss does not depend on are frozen.
        terms: the losses of the outputs; one, unless several were asked for.
        labels: the type of each term's labels, by the step's name for them.
        cut: where the model was cut for `features`.
        activations: what each output of `infer` ends in beyond the scores its loss is computed from:
            `Softmax`, `Sigmoid` or "".
        idle: parameters selected that are frozen because no gradient reaches them, and why.
        notes: what was decided on the way, in sentences.
    """

    step: Graph
    step_last: Graph | None
    step_products: Graph | None
    features: Graph | None
    infer: Graph
    roles: Mapping[str, Role]
    terms: tuple[Term, ...]
    labels: Mapping[str, TensorType]
    cut: Cut | None
    activations: Mapping[str, str]
    idle: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(name for name, role in self.roles.items() if role in ("shared", "personal"))

    @property
    def label(self) -> TensorType:
        """The type of the first term's labels."""
        return self.labels[self.terms[0].y]

    @property
    def activation(self) -> str:
        """What the first output ends in beyond its scores."""
        return self.activations[self.terms[0].gives]


def make_graphs(
    forward: Forward,
    roles: Mapping[str, Role],
    loss: str | Loss | Sequence[Term],
    precision: Precision = FULL,
) -> Graphs:
    """The graphs of a model.

    Args:
        forward: a model in normalised operators.
        roles: the role of every parameter; trained ones become inputs, the others constants.
        loss: a name of `edgefl.converters.losses`, or a loss, for the first output; or terms.
        precision: what is rounded.

    Raises:
        NotDifferentiable: an operator between the loss and a trained parameter has no gradient.
        SelectionError: the loss depends on none of the trained parameters.
        ConversionError: the loss does not fit the output.
    """
    terms = _terms(forward, loss)
    trained = [name for name, role in roles.items() if role in ("shared", "personal")]
    changing = {*trained, *forward.updated}
    fixed = {name: value for name, value in forward.parameters.items() if name not in changing}
    plain = precision.frozen(fold(bind(forward.graph, fixed), forward.inputs))
    extra = _extra_inputs(forward)
    whole = plain
    if forward.training is not None:
        whole = precision.frozen(fold(bind(forward.training, fixed), (*forward.inputs, *extra)))
    rounding = precision.training(whole, trained, forward.inputs)
    heads = [_head(whole, term) for term in terms]
    cut = find_cut(whole, [head.scores for head in heads], [*trained, *extra], forward.inputs)
    inputs = _step_inputs(whole, forward.inputs, cut)
    made_of = rounding, inputs, trained, heads, extra
    step = _step(*made_of)
    idle = [name for name in trained if f"grad/{name}" not in step.outputs]
    if idle:
        return _without(forward, roles, terms, _why(whole, [h.scores for h in heads], idle), precision)
    convolves = any(node.op in ("Conv", "ConvTranspose") for node in step)
    return Graphs(
        step=step,
        step_last=_step(*made_of, channels_last=True) if convolves else None,
        step_products=_step(*made_of, correlations=True) if convolves else None,
        features=_features(whole, forward.inputs, cut) if cut else None,
        infer=_infer(plain, forward.inputs, [*trained, *forward.updated], terms),
        roles=dict(roles),
        terms=terms,
        labels={head.term.y: head.label for head in heads},
        cut=cut,
        activations={head.term.gives: head.activation for head in heads},
        idle={},
        notes=tuple(note for head in heads for note in head.notes()),
    )


def _terms(forward: Forward, loss: str | Loss | Sequence[Term]) -> tuple[Term, ...]:
    if isinstance(loss, (str, Loss)):
        return (Term(forward.outputs[0], find_loss(loss) if isinstance(loss, str) else loss),)
    return tuple(loss)


def _without(
    forward: Forward,
    roles: Mapping[str, Role],
    terms: Sequence[Term],
    idle: Mapping[str, str],
    precision: Precision,
) -> Graphs:
    """The graphs with parameters frozen that no gradient reaches."""
    rest: dict[str, Role] = {name: "frozen" if name in idle else role for name, role in roles.items()}
    if not any(role in ("shared", "personal") for role in rest.values()):
        shown = ", ".join(f"{name} ({why})" for name, why in list(idle.items())[:5])
        raise SelectionError(f"the loss depends on none of the selected parameters: {shown}")
    return replace(make_graphs(forward, rest, terms, precision), idle=idle)


def _why(whole: Graph, scores: Sequence[str], idle: Sequence[str]) -> dict[str, str]:
    """For each parameter without a gradient, the reason."""
    used = set(scores)
    for node in reversed(whole.nodes):
        if not used.isdisjoint(node.outputs):
            used.update(node.inputs)
    stopped = "the loss depends on it only where no gradient passes: rounding, comparisons, indices or detach"
    return {name: stopped if name in used else "the loss does not depend on it" for name in idle}


@dataclass(frozen=True)
class _Head:
    """Where a term's loss is computed: the tensor of scores, and the final activation left out after it."""

    term: Term
    scores: str
    activation: str
    label: TensorType

    def notes(self) -> tuple[str, ...]:
        text = (
            f"{self.term.loss.name} is computed before the model's final {self.activation}, which it contains"
        )
        return (text,) if self.activation else ()


def _head(whole: Graph, term: Term) -> _Head:
    scores, activation = _before_activation(whole, term.output, term.loss)
    return _Head(term, scores, activation, term.loss.label(whole.type_of(scores)))


def _before_activation(graph: Graph, output: str, loss: Loss) -> tuple[str, str]:
    """The tensor the loss is computed from, and the final activation left out as the loss contains it.

    Raises:
        ConversionError: the output ends in probabilities, and the loss takes scores of another kind or place.
    """
    node = graph.producers().get(output)
    if node is None or not loss.activation:
        return output, ""
    if node.op == loss.activation and not (node.op == "Softmax" and not _is_over_last_axis(graph, node)):
        return node.inputs[0], node.op
    _refuse_probabilities(graph, output, loss)
    return output, ""


def _is_over_last_axis(graph: Graph, node: Node) -> bool:
    rank = len(graph.type_of(node.inputs[0]).shape)
    return int(np.asarray(node.attributes.get("axis", -1))) % rank == rank - 1


def _refuse_probabilities(graph: Graph, output: str, loss: Loss) -> None:
    makers = graph.producers()
    node, between = makers.get(output), list[str]()
    while node is not None and node.op in _MOVES:
        between.append(node.op)
        node = makers.get(node.inputs[0])
    if node is None or node.op not in _PROBABILITIES:
        return
    if node.op == "LogSoftmax" and loss.activation == "Softmax" and not between:
        return  # which changes nothing a second time
    others = ", ".join(name for name, known in LOSSES.items() if known.activation == node.op)
    instead = f" or take a loss that contains it ({others})" if others else ""
    behind = f" and {', '.join(between)} behind it" if between else ""
    raise ConversionError(
        f"output {output!r} ends in {node.op}{behind}, and {loss.name} takes scores, to which it applies "
        f"{loss.activation} over the last axis itself: leave {node.op} out of the model{instead}"
    )


def _step_inputs(whole: Graph, data: Sequence[str], cut: Cut | None) -> dict[str, str]:
    """Tensor of the forward graph to the step's input for it."""
    if cut is None:
        return {name: name for name in data}
    own = [t for t in cut.tensors if t not in data]
    names = {t: "features" if len(own) == 1 else f"features/{i}" for i, t in enumerate(own)}
    return {t: names.get(t, t) for t in cut.tensors}


def _extra_inputs(forward: Forward) -> tuple[str, ...]:
    """What the training graph takes beyond data and trained parameters."""
    return () if forward.training is None else (SEED, "weight", *forward.updated)


def _step(
    whole: Graph,
    inputs: Mapping[str, str],
    trained: Sequence[str],
    heads: Sequence[_Head],
    extra: Sequence[str],
    *,
    channels_last: bool = False,
    correlations: bool = False,
) -> Graph:
    b = GraphBuilder(channels_last=channels_last, correlations=correlations)
    bound = {tensor: b.input(name, whole.type_of(tensor)) for tensor, name in inputs.items()}
    labels = {head.term.y: Expr(b, b.input(head.term.y, head.label)) for head in heads}
    batch = whole.type_of(next(iter(inputs), heads[0].scores)).shape[:1]
    weight = Expr(b, b.input("weight", TensorType(np.dtype(np.float32), batch)))
    if extra:
        bound["weight"] = weight.name
    bound.update({n: b.input(n, whole.inputs[n]) for n in (*trained, *extra) if n not in bound})
    buffers = [name for name in whole.outputs if name.startswith(BUFFER)]
    wanted = [*(head.scores for head in heads), *buffers]
    whole = postpone(whole, {*bound, *wanted}) if channels_last else whole
    place = graft_flat if channels_last and suits(whole, bound, wanted) else graft
    tensors = place(b, whole, bound, wanted)
    losses = [
        h.term.loss.emit(Expr(b, tensors[h.scores]), labels[h.term.y], weight) * h.term.share for h in heads
    ]
    total = weighted_mean(add_all(losses), weight)
    found = gradients(b, total.name, trained)
    b.output("loss", total.name)
    for name in trained:
        if name in found:
            b.output(f"grad/{name}", found[name])
    for name in buffers:
        b.output(name, tensors[name])
    return simplify(b.build("step"))


def _features(whole: Graph, data: Sequence[str], cut: Cut) -> Graph:
    """The frozen prefix; data inputs that the step reads as they are do not pass through it."""
    b = GraphBuilder()
    bound = {name: b.input(name, whole.inputs[name]) for name in data}
    tensors = graft(b, whole, bound, cut.tensors)
    for tensor, name in _step_inputs(whole, data, cut).items():
        if tensor not in data:
            b.output(name, tensors[tensor])
    return b.build("features")


def _infer(whole: Graph, data: Sequence[str], taken: Sequence[str], terms: Sequence[Term]) -> Graph:
    b = GraphBuilder()
    bound = {name: b.input(name, whole.inputs[name]) for name in (*data, *taken)}
    tensors = graft(b, whole, bound, [term.output for term in terms])
    for term in terms:
        b.output(term.gives, tensors[term.output])
    return b.build("infer")
