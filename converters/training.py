# SPDX-License-Identifier: Apache-2.0
"""What a model does in training only: dropout with a seed, and statistics of the batch in BatchNorm.

A model that has either gets a second graph beside the one for inference. It takes `seed`, int32 `[1]`: a
negative one gives what inference gives, any other decides the masks and takes statistics from the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize import REWRITES, normalize, simplify
from edgefl.converters.normalize.arithmetic import spread
from edgefl.converters.normalize.layout import reshape
from edgefl.converters.normalize.normalization import affine, standardised
from edgefl.converters.normalize.registry import Rewrite, number, replay
from edgefl.converters.randomness import Masks
from edgefl.converters.sources.forward import Forward, Statistics
from edgefl.errors import ConversionError
from edgefl.graph.model import Array, Graph, Node, TensorType

BatchNorm = Literal["frozen", "batch", "group"]
BATCH_NORMS: tuple[BatchNorm, ...] = ("frozen", "batch", "group")

SEED, BUFFER = "seed", "buffer/"
_GROUPS, _LEAST = 32, 8  # at most so many groups, of at least so many channels


def check_policy(batch_norm: str) -> None:
    """Raise ConversionError where there is no such BatchNorm policy."""
    if batch_norm not in BATCH_NORMS:
        raise ConversionError(f"batch_norm is {batch_norm!r}, allowed {', '.join(BATCH_NORMS)}")


def prepare(forward: Forward, *, dropout: bool = False, batch_norm: str = "frozen") -> Forward:
    """A source's model in normalised operators, with a training graph where it needs one.

    Args:
        forward: as a source yields it, loaded with the same options.
        dropout: keep dropout in training.
        batch_norm: `frozen` uses the running statistics as they are; `batch` those of the batch's examples
            whose weight is not 0, and updates the running ones; `group` replaces BatchNorm by GroupNorm.

    Raises:
        ConversionError: the policy does not exist, or the model has nothing it applies to.
    """
    check_policy(batch_norm)
    graph, notes = forward.graph, dict(forward.provenance)
    layers = [node for node in graph if node.op == "BatchNormalization" and _statistics(forward, node)]
    if batch_norm != "frozen":
        if not layers:
            raise ConversionError(f"batch_norm is {batch_norm!r}, but the model has no BatchNorm that trains")
        notes["batch_norm"] = f"{batch_norm}: {_described(graph, layers, batch_norm)}"
    drops = [node for node in forward.graph if node.op == "Dropout"] if dropout else []
    if dropout and not drops:
        raise ConversionError("dropout is to be kept, but the model has none; leave dropout=True out")
    if dropout:
        notes.setdefault("dropout", f"kept: {len(drops)} layers")
    if batch_norm == "group":
        inference = _replayed(graph, _group_rewrites(layers))
        return _with_training(forward, inference, notes, drops, (), _group_rewrites(layers))
    return _with_training(
        forward, normalize(graph), notes, drops, layers if batch_norm == "batch" else (), {}
    )


def _with_training(
    forward: Forward,
    inference: Graph,
    notes: Mapping[str, str],
    drops: Sequence[Node],
    layers: Sequence[Node],
    rewrites: Mapping[str, Rewrite],
) -> Forward:
    training = _Training(forward, drops, layers, rewrites).graph() if drops or layers else None
    updated = dict.fromkeys(n for node in layers for n in _names(_statistics(forward, node)))
    changed = replace(
        forward, graph=inference, training=training, updated=tuple(updated), provenance=dict(notes)
    )
    return _without_idle(changed) if rewrites else changed


def _without_idle(forward: Forward) -> Forward:
    """Without the buffers that nothing reads any more."""
    graphs = [forward.graph, *([forward.training] if forward.training else [])]
    read = {t for graph in graphs for node in graph for t in node.inputs}
    idle = forward.buffers - read

    def left(graph: Graph) -> Graph:
        return replace(graph, inputs={n: t for n, t in graph.inputs.items() if n not in idle})

    return replace(
        forward,
        graph=left(forward.graph),
        training=forward.training and left(forward.training),
        parameters={n: v for n, v in forward.parameters.items() if n not in idle},
        buffers=forward.buffers - idle,
    )


def _statistics(forward: Forward, node: Node) -> Statistics | None:
    return next((s for s in forward.statistics if s.mean == node.inputs[3]), None)


def _names(statistics: Statistics | None) -> tuple[str, ...]:
    return (statistics.mean, statistics.variance) if statistics else ()


def _described(graph: Graph, layers: Sequence[Node], policy: str) -> str:
    if policy == "batch":
        return f"{len(layers)} layers use the batch's statistics"
    sizes = {graph.type_of(node.inputs[0]).shape[1] for node in layers}
    rows = ", ".join(f"{n} channels in {groups(n)} groups" for n in sorted(sizes))
    return f"{len(layers)} layers became GroupNorm, {rows}"


# -- GroupNorm


def groups(channels: int) -> int:
    """Groups that replace a BatchNorm: the most, up to 32, that leave 8 channels or more in each, else 1."""
    fitting = (g for g in range(_GROUPS, 0, -1) if channels % g == 0 and channels // g >= _LEAST)
    return next(fitting, 1)


def _group_rewrites(layers: Sequence[Node]) -> dict[str, Rewrite]:
    """Rewrites that make BatchNorm layers GroupNorm of the same scale and offset."""
    chosen = {node.outputs[0] for node in layers}

    def group_norm(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
        if node.outputs[0] not in chosen:
            return REWRITES["BatchNormalization"](b, node, inputs)
        x, scale, bias = inputs[:3]
        shape = b.shape(x)
        count = groups(shape[1])
        grouped = reshape(b, x, (shape[0], count, math.prod(shape[1:]) // count))
        y, *_ = standardised(b, grouped, (2,), number(node, "epsilon", 1e-5))
        return affine(b, reshape(b, y, shape), spread(b, scale, shape), spread(b, bias, shape))

    return {"BatchNormalization": group_norm}


def _replayed(graph: Graph, rewrites: Mapping[str, Rewrite]) -> Graph:
    return simplify(replay(graph, {**REWRITES, **rewrites}))


# -- the training graph


class _Training:
    def __init__(
        self,
        forward: Forward,
        drops: Sequence[Node],
        layers: Sequence[Node],
        rewrites: Mapping[str, Rewrite],
    ) -> None:
        graph = forward.graph
        self._forward, self._graph = forward, graph
        self._drops = {node.outputs[0]: i for i, node in enumerate(drops)}
        self._shapes = [_mask_shape(graph, node) for node in drops]
        self._layers = {node.outputs[0] for node in layers}
        self._rewrites = rewrites
        self._masks: Masks | None = None
        self._updates: dict[str, str] = {}

    def graph(self) -> Graph:
        batch = self._graph.inputs[self._forward.inputs[0]].shape[:1]
        extra = {
            SEED: TensorType(np.dtype(np.int32), (1,)),
            "weight": TensorType(np.dtype(np.float32), batch),
        }
        whole = replace(self._graph, inputs={**self._graph.inputs, **extra})
        rewrites: dict[str, Rewrite] = {
            **REWRITES,
            "Dropout": self._dropout,
            "BatchNormalization": self._batch_norm,
            **self._rewrites,
        }
        return simplify(replay(whole, rewrites, self._updates))

    def _dropout(self, b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
        index = self._drops.get(node.outputs[0])
        if index is None:
            return REWRITES["Dropout"](b, node, inputs)
        if len(node.outputs) > 1:
            raise ConversionError(f"node {node} gives its mask too, which is not covered; leave dropout out")
        if self._masks is None:
            self._masks = Masks(Expr(b, SEED), self._shapes)
        return (Expr(b, inputs[0]) * self._masks.scale(index, _rate(b, node, inputs))).name

    def _batch_norm(self, b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
        statistics = _statistics(self._forward, node)
        if statistics is None or node.outputs[0] not in self._layers:
            return REWRITES["BatchNormalization"](b, node, inputs)
        x, scale, bias, mean, variance = (Expr(b, t) for t in inputs[:5])
        channels = (1, x.shape[1], *(1,) * (x.rank - 2))
        axes = [i for i in range(x.rank) if i != 1]
        training = Expr(b, SEED).greater(-1)
        present = Expr(b, "weight").greater(0).cast(np.float32).reshape((x.shape[0], *(1,) * (x.rank - 1)))
        count = present.sum() * float(math.prod(x.shape[2:]))
        count = count.apply("Max", count.constant(1.0))
        own_mean = (x * present).sum(axes) / count
        centred = x - own_mean.reshape(channels)
        own_variance = (centred * centred * present).sum(axes) / count
        used_mean, used_variance = training.where(own_mean, mean), training.where(own_variance, variance)
        self._update(statistics, count, training, own_mean, own_variance)
        epsilon = number(node, "epsilon", 1e-5)
        factor = scale / (used_variance + epsilon).sqrt()
        made = (x - used_mean.reshape(channels)) * factor.reshape(channels) + bias.reshape(channels)
        return made.name

    def _update(
        self, statistics: Statistics, count: Expr, training: Expr, mean: Expr, variance: Expr
    ) -> None:
        """Running statistics moved towards those of the batch; left as they are for a negative seed."""
        if statistics.unbiased:
            variance = variance * (count / (count - 1.0).apply("Max", count.constant(1.0)))
        for name, new in ((statistics.mean, mean), (statistics.variance, variance)):
            old = Expr(mean.builder, self._updates.get(f"{BUFFER}{name}", name))
            moved = old * (1 - statistics.momentum) + new * statistics.momentum
            self._updates[f"{BUFFER}{name}"] = training.where(moved, old).name


def _mask_shape(graph: Graph, node: Node) -> tuple[int, ...]:
    given = node.attributes.get("shape")
    return graph.type_of(node.inputs[0]).shape if given is None else tuple(int(n) for n in np.ravel(given))


def _rate(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> float:
    if "rate" in node.attributes:
        return number(node, "rate", 0.5)
    given: Array | None = b.value(inputs[1]) if len(inputs) > 1 and inputs[1] else None
    return 0.5 if given is None else float(given)
