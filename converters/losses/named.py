# SPDX-License-Identifier: Apache-2.0
"""The losses that look at one example at a time."""

from __future__ import annotations

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.converters.losses.registry import loss
from edgefl.data import IGNORED
from edgefl.errors import ConversionError
from edgefl.graph.model import TensorType

_LEAST = 1e-30  # below the weight of anything that counts


def _classes(output: TensorType) -> TensorType:
    """Class numbers for an output `[B, ..., C]`: int32 `[B, ...]`."""
    if len(output.shape) < 2:
        raise ConversionError(f"class scores need an axis of classes after the batch, the output is {output}")
    if output.shape[-1] < 2:
        raise ConversionError(
            f"the output {output} has scores of one class, whose cross-entropy is 0 whatever is learned: "
            "give sigmoid_cross_entropy for yes or no, mean_squared_error for a number, or two classes"
        )
    return TensorType(np.dtype(np.int32), output.shape[:-1])


def _tokens(output: TensorType) -> TensorType:
    if len(output.shape) != 3 or output.shape[1] < 2:
        raise ConversionError(
            f"next_token needs scores [B, T, C] with T of 2 or more, the output is {output}"
        )
    return _classes(output)


def _same(output: TensorType) -> TensorType:
    """Float32 of the output's shape."""
    return TensorType(np.dtype(np.float32), output.shape)


def _mean(values: Expr) -> Expr:
    """The mean over all but the batch axis."""
    count = int(np.prod(values.shape[1:]))
    return values.sum(range(1, values.rank)) / float(count)


@loss(_classes, "Softmax")
def softmax_cross_entropy(
    output: Expr,
    y: Expr,
    weight: Expr,
    smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "example",
) -> Expr:
    """`-log p[y]` of logits `[B, ..., C]`, the mean over positions.

    With `smoothing` s the target is `(1 - s) onehot + s / C`. Labels equal to `ignore_index` do not count; it
    is -100 unless given where an example has several labels, and none where it has one.
    """
    losses = -_picked(output.apply("LogSoftmax", axis=-1), y, smoothing)
    if ignore_index is None:
        if y.rank == 1:
            return losses
        ignore_index = IGNORED
    return _counted(losses, y, weight, ignore_index, reduction)


@loss(_tokens, "Softmax")
def next_token(
    output: Expr, y: Expr, weight: Expr, ignore_index: int = IGNORED, reduction: str = "example"
) -> Expr:
    """Cross-entropy of the scores at each position `[B, T, C]` with the token that follows in `y` `[B, T]`.

    Tokens equal to `ignore_index` are not predicted.
    """
    last = output.shape[1]
    log_p = output.slice(1, 0, last - 1).apply("LogSoftmax", axis=-1)
    following = y.slice(1, 1, last)
    return _counted(-_picked(log_p, following, 0.0), following, weight, ignore_index, reduction)


def _picked(log_p: Expr, y: Expr, smoothing: float) -> Expr:
    classes = log_p.shape[-1]
    chosen = y.reshape((*y.shape, 1)).equals(y.constant(np.arange(classes)))
    picked = chosen.keep(log_p).sum([log_p.rank - 1])
    if not smoothing:
        return picked
    return picked * (1 - smoothing) + log_p.sum([log_p.rank - 1]) * (smoothing / classes)


def _counted(losses: Expr, y: Expr, weight: Expr, ignore_index: int, reduction: str) -> Expr:
    """Losses at positions `[B, ...]` as those of examples `[B]`, positions with `ignore_index` left out.

    The mean over examples of what comes out, by their weights, is that over the examples that have a position
    which counts; or, where the reduction is `token`, over all positions that count, each with its example's
    weight. It is 0 where nothing counts.
    """
    here = 1.0 - y.equals(ignore_index).cast(losses.dtype)
    axes = range(1, losses.rank)
    total, count = (losses * here).sum(axes), here.sum(axes)
    if reduction == "example":
        counts = count.apply("Min", count.constant(1.0))
        total = total / count.apply("Max", count.constant(1.0))
    else:
        counts = count
    shares = (weight * counts).sum()
    return total * (weight.sum() / shares.apply("Max", shares.constant(_LEAST)))


@loss(_same, "Sigmoid")
def sigmoid_cross_entropy(output: Expr, y: Expr) -> Expr:
    """Binary cross-entropy of logits, the mean over an example's outputs; targets in [0, 1]."""
    return _mean(output.apply("Softplus") - output * y)


@loss(_same)
def mean_squared_error(output: Expr, y: Expr) -> Expr:
    difference = output - y
    return _mean(difference * difference)


@loss(_same)
def mean_absolute_error(output: Expr, y: Expr) -> Expr:
    return _mean((output - y).apply("Abs"))


@loss(_same)
def huber(output: Expr, y: Expr, delta: float = 1.0) -> Expr:
    """`d^2 / 2` up to `delta`, linear beyond, as `torch.nn.HuberLoss`."""
    size = (output - y).apply("Abs")
    near = size.apply("Min", size.constant(delta))
    return _mean(near * (size - near * 0.5))


@loss(_same)
def cosine(output: Expr, y: Expr) -> Expr:
    """`1 - cos(output, y)` over the last axis of embeddings `[B, ..., D]`."""
    axis = [output.rank - 1]
    dot = (output * y).sum(axis)
    norms = (output * output).sum(axis) * (y * y).sum(axis)
    return _mean(1.0 - dot / norms.apply("Max", norms.constant(1e-16)).sqrt())
