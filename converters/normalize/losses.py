# SPDX-License-Identifier: Apache-2.0
"""Rewrites of loss operators, as traced losses use them, into what the losses by name are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.registry import given, rewrite, text
from edgefl.graph.model import Node


@rewrite("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    """`-log_softmax(scores)[label]` over axis 1, and the logarithms."""
    scores = Expr(b, inputs[0])
    log_p = scores.transpose(*_last(scores.rank)).apply("LogSoftmax", axis=-1)
    return _picked(b, node, log_p, inputs), log_p.transpose(*_second(scores.rank)).name


@rewrite("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    log_p = Expr(b, inputs[0])
    return _picked(b, node, log_p.transpose(*_last(log_p.rank)), inputs)


def _picked(b: GraphBuilder, node: Node, log_p: Expr, inputs: Sequence[str]) -> str:
    """`-weight[label] * log_p[..., label]`, zero at labels to ignore, reduced as the node says."""
    labels, classes = Expr(b, inputs[1]), log_p.shape[-1]
    chosen = labels.reshape((*labels.shape, 1)).equals(labels.constant(np.arange(classes)))
    if "ignore_index" in node.attributes:
        ignored = int(np.asarray(node.attributes["ignore_index"]))
        kept = labels.equals(ignored).apply("Not")
        chosen = chosen.apply("And", kept.reshape((*labels.shape, 1)))
    weight = Expr(b, given(inputs, 2)) if given(inputs, 2) else log_p.constant(np.ones(classes, np.float32))
    last = [log_p.rank - 1]
    losses = -chosen.keep(log_p * weight).sum(last)
    reduction = text(node, "reduction", "mean")
    if reduction == "none":
        return losses.name
    if reduction == "sum":
        return losses.sum().name
    return (losses.sum() / chosen.keep(weight.expand(log_p.shape)).sum()).name


def _last(rank: int) -> tuple[int, ...]:
    """The permutation that puts axis 1 last."""
    return (0, *range(2, rank), 1)


def _second(rank: int) -> tuple[int, ...]:
    """The permutation that puts the last axis second."""
    return (0, rank - 1, *range(1, rank - 1))
