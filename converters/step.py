# SPDX-License-Identifier: Apache-2.0
"""From a forward graph, roles and a loss to the graphs a device runs: step, features and infer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgefl.converters.autodiff import Expr, gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.fold import fold
from edgefl.converters.graft import bind, graft
from edgefl.converters.losses import Loss, find_loss, weighted_mean
from edgefl.converters.normalize import simplify
from edgefl.converters.sources.forward import Forward
from edgefl.converters.split import Cut, find_cut
from edgefl.errors import ConversionError, SelectionError
from edgefl.graph.model import Graph, TensorType
from edgefl.parameters import Role


@dataclass(frozen=True, eq=False)
class Graphs:
    """What a model becomes.

    Attributes:
        step: data inputs (or what `features` gives), `y`, `weight`, trained parameters
            -> `loss`, `grad/<name>`.
        features: data inputs -> the step's data inputs; None where no frozen prefix is worth a cut.
        infer: data inputs, trained parameters -> `output`.
        roles: as selected, except that parameters the loss does not depend on are frozen.
        label: the type of `y`.
        cut: where the model was cut for `features`.
        activation: what `infer` ends in beyond the scores the loss is computed from: `Softmax`, `Sigmoid`
            or "".
        notes: what was decided on the way, in sentences.
    """

    step: Graph
    features: Graph | None
    infer: Graph
    roles: Mapping[str, Role]
    label: TensorType
    cut: Cut | None
    activation: str
    notes: tuple[str, ...]

    @property
    def trained(self) -> tuple[str, ...]:
        return tuple(name for name, role in self.roles.items() if role in ("shared", "personal"))


def make_graphs(forward: Forward, roles: Mapping[str, Role], loss: str | Loss) -> Graphs:
    """The graphs of a model, for the loss of its first output.

    Args:
        forward: a model in normalised operators.
        roles: the role of every parameter; trained ones become inputs, the others constants.
        loss: a name of `edgefl.converters.losses`, or a loss.

    Raises:
        NotDifferentiable: an operator between the loss and a trained parameter has no gradient.
        SelectionError: the loss depends on none of the trained parameters.
        ConversionError: the loss does not fit the output.
    """
    chosen = find_loss(loss) if isinstance(loss, str) else loss
    trained = [name for name, role in roles.items() if role in ("shared", "personal")]
    fixed = {name: value for name, value in forward.parameters.items() if name not in trained}
    whole = fold(bind(forward.graph, fixed), forward.inputs)
    logits, activation = _before_activation(whole, forward.outputs[0], chosen)
    cut = find_cut(whole, logits, trained, forward.inputs)
    label = chosen.label(whole.type_of(logits))
    step = _step(whole, _step_inputs(whole, forward.inputs, cut), trained, logits, chosen)
    idle = [name for name in trained if f"grad/{name}" not in step.outputs]
    if idle:
        return _without(forward, roles, chosen, idle)
    return Graphs(
        step=step,
        features=_features(whole, forward.inputs, cut) if cut else None,
        infer=_infer(whole, forward.inputs, trained, forward.outputs[0]),
        roles=dict(roles),
        label=label,
        cut=cut,
        activation=activation,
        notes=_activation_note(chosen, activation),
    )


def _without(forward: Forward, roles: Mapping[str, Role], loss: Loss, idle: Sequence[str]) -> Graphs:
    """The graphs with parameters frozen that the loss does not depend on."""
    rest: dict[str, Role] = {name: "frozen" if name in idle else role for name, role in roles.items()}
    if not any(role in ("shared", "personal") for role in rest.values()):
        raise SelectionError(f"the loss depends on none of the selected parameters: {', '.join(idle[:5])}")
    graphs = make_graphs(forward, rest, loss)
    note = f"frozen, because the loss does not depend on them: {', '.join(idle)}"
    return replace(graphs, notes=(*graphs.notes, note))


def _before_activation(graph: Graph, output: str, loss: Loss) -> tuple[str, str]:
    """The tensor the loss is computed from, and the final activation left out as the loss contains it."""
    node = graph.producers().get(output)
    if node is None or not loss.activation or node.op != loss.activation:
        return output, ""
    rank = len(graph.type_of(output).shape)
    if node.op == "Softmax" and int(np.asarray(node.attributes.get("axis", -1))) % rank != rank - 1:
        return output, ""
    return node.inputs[0], node.op


def _activation_note(loss: Loss, activation: str) -> tuple[str, ...]:
    text = f"{loss.name} is computed before the model's final {activation}, which it contains"
    return (text,) if activation else ()


def _step_inputs(whole: Graph, data: Sequence[str], cut: Cut | None) -> dict[str, str]:
    """Tensor of the forward graph to the step's input for it."""
    if cut is None:
        return {name: name for name in data}
    own = [t for t in cut.tensors if t not in data]
    names = {t: "features" if len(own) == 1 else f"features/{i}" for i, t in enumerate(own)}
    return {t: names.get(t, t) for t in cut.tensors}


def _step(whole: Graph, inputs: Mapping[str, str], trained: Sequence[str], logits: str, loss: Loss) -> Graph:
    b = GraphBuilder()
    bound = {tensor: b.input(name, whole.type_of(tensor)) for tensor, name in inputs.items()}
    output = whole.type_of(logits)
    batch = next(iter(inputs)) if inputs else logits
    y = Expr(b, b.input("y", loss.label(output)))
    weight = Expr(b, b.input("weight", TensorType(np.dtype(np.float32), whole.type_of(batch).shape[:1])))
    bound.update({name: b.input(name, whole.inputs[name]) for name in trained})
    tensors = graft(b, whole, bound, [logits])
    losses = loss.per_example(Expr(b, tensors[logits]), y)
    if losses.shape != weight.shape:
        raise ConversionError(
            f"loss {loss.name!r} of the output {output} gives shape {losses.shape}, "
            f"expected one value per example, {weight.shape}"
        )
    total = weighted_mean(losses, weight)
    found = gradients(b, total.name, trained)
    b.output("loss", total.name)
    for name in trained:
        if name in found:
            b.output(f"grad/{name}", found[name])
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


def _infer(whole: Graph, data: Sequence[str], trained: Sequence[str], output: str) -> Graph:
    b = GraphBuilder()
    bound = {name: b.input(name, whole.inputs[name]) for name in (*data, *trained)}
    b.output("output", graft(b, whole, bound, [output])[output])
    return b.build("infer")
