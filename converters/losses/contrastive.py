# SPDX-License-Identifier: Apache-2.0
"""Losses that compare the examples of a batch with one another.

Examples of weight 0 take no part, so that a padded batch gives what its real examples give. The number of
negatives is that of the other examples in the batch.
"""

from __future__ import annotations

import numpy as np

from edgefl.converters.autodiff.expression import Expr, concat
from edgefl.converters.losses.registry import loss
from edgefl.errors import ConversionError
from edgefl.graph.model import TensorType

_NEVER = -1e9  # a score whose exponential is zero beside any other
_SHORTEST = 1e-12  # squared length below which an embedding is not stretched further


def _others(name: str, output: TensorType) -> None:
    if output.shape[0] < 2:
        raise ConversionError(
            f"{name} tells an example from the others in its batch: batch_size has to be 2 or more"
        )


def _pairs(output: TensorType) -> TensorType:
    """The other half of each pair: float32 embeddings as the output's."""
    if len(output.shape) != 2:
        raise ConversionError(f"info_nce needs embeddings [B, D], the output is {output}")
    _others("info_nce", output)
    return TensorType(np.dtype(np.float32), output.shape)


def _identities(output: TensorType) -> TensorType:
    """A number for what each example shows: int32 `[B]`."""
    if len(output.shape) != 3 or output.shape[1] != 2:
        raise ConversionError(
            f"nt_xent needs embeddings [B, 2, D] of two views of each example, the output is {output}"
        )
    _others("nt_xent", output)
    return TensorType(np.dtype(np.int32), output.shape[:1])


@loss(_pairs)
def info_nce(output: Expr, y: Expr, weight: Expr, temperature: float = 0.1) -> Expr:
    """InfoNCE (van den Oord et al., 2018, arXiv:1807.03748) over cosines: which `y` belongs to each output.

    `-log(exp(s_ii / t) / sum_j exp(s_ij / t))` with `s_ij` the cosine of output i and `y` j, both `[B, D]`.
    """
    batch = output.shape[0]
    own = output.constant(np.eye(batch), np.bool_)
    counted = own.apply("Or", weight.greater(0).reshape((1, batch)))
    return _missed(_unit(output) @ _unit(y).transpose(1, 0) / temperature, own, counted)


@loss(_identities)
def nt_xent(output: Expr, y: Expr, weight: Expr, temperature: float = 0.5) -> Expr:
    """NT-Xent (Chen et al., SimCLR, ICML 2020, equation 1) of embeddings `[B, 2, D]`, the mean of both views.

    Each view has to find the example's other view among the views of other examples. Examples with the same
    number `y` are no negatives of each other; with distinct numbers it is the paper's loss.
    """
    batch, views, width = output.shape
    count = batch * views
    unit = _unit(output.reshape((count, width)))
    partner = output.constant(np.eye(count)[np.arange(count) ^ 1], np.bool_)
    identity, weights = _per_view(y), _per_view(weight)
    other = identity.reshape((count, 1)).equals(identity.reshape((1, count))).apply("Not")
    counted = partner.apply("Or", other.apply("And", weights.greater(0).reshape((1, count))))
    losses = _missed(unit @ unit.transpose(1, 0) / temperature, partner, counted)
    return losses.reshape((batch, views)).sum([1]) / float(views)


def _missed(scores: Expr, positive: Expr, counted: Expr) -> Expr:
    """`-log p` of the one positive in each row, among the columns that count."""
    log_p = counted.where(scores, _NEVER).apply("LogSoftmax", axis=-1)
    return -positive.keep(log_p).sum([1])


def _per_view(values: Expr) -> Expr:
    """Values of examples `[B]` as those of their two views, `[2 B]`."""
    column = values.reshape((values.shape[0], 1))
    return concat([column, column], 1).reshape((2 * values.shape[0],))


def _unit(vectors: Expr) -> Expr:
    """Rows of length 1."""
    power = (vectors * vectors).sum([1], keepdims=True)
    return vectors / power.apply("Max", power.constant(_SHORTEST)).sqrt()
