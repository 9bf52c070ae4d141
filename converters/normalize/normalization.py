# SPDX-License-Identifier: Apache-2.0
"""Rewrites of normalisation layers into means, products and square roots."""

from __future__ import annotations

from collections.abc import Sequence

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.arithmetic import reduce, spread, squared
from edgefl.converters.normalize.layout import expand, reshape
from edgefl.converters.normalize.registry import given, integer, integers, like, number, rewrite
from edgefl.errors import UnsupportedOperator
from edgefl.graph.model import Node


def inverse_deviation(b: GraphBuilder, variance: str, epsilon: float) -> str:
    """`1 / sqrt(variance + epsilon)`."""
    return b.add("Reciprocal", b.add("Sqrt", b.add("Add", variance, like(b, variance, epsilon))))


def standardised(b: GraphBuilder, x: str, axes: Sequence[int], epsilon: float) -> tuple[str, str, str]:
    """`x` with mean 0 and variance 1 over the axes, and the mean and the inverse deviation it took."""
    mean = reduce(b, "ReduceMean", x, axes, True)
    centred = b.add("Sub", x, mean)
    inverse = inverse_deviation(b, reduce(b, "ReduceMean", squared(b, centred), axes, True), epsilon)
    return b.add("Mul", centred, inverse), mean, inverse


def affine(b: GraphBuilder, x: str, scale: str, bias: str) -> str:
    """`x * scale + bias`, each left out when absent."""
    x = b.add("Mul", x, scale) if scale else x
    return b.add("Add", x, bias) if bias else x


@rewrite("BatchNormalization")
def batch_normalization(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Frozen statistics: one multiply and one add per element; scale and bias stay differentiable."""
    if integer(node, "training_mode", 0):
        raise UnsupportedOperator(f"node {node} takes statistics from the batch; export it for inference")
    x, scale, bias, mean, variance = inputs
    factor = b.add("Mul", scale, inverse_deviation(b, variance, number(node, "epsilon", 1e-5)))
    offset = b.add("Sub", bias, b.add("Mul", mean, factor))
    shape = b.shape(x)
    return affine(b, x, spread(b, factor, shape), spread(b, offset, shape))


@rewrite("LayerNormalization")
def layer_normalization(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    x, rank = inputs[0], len(b.shape(inputs[0]))
    axes = range(integer(node, "axis", -1) % rank, rank)
    y, mean, inverse = standardised(b, x, axes, number(node, "epsilon", 1e-5))
    return affine(b, y, given(inputs, 1), given(inputs, 2)), mean, inverse


@rewrite("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x, rank = inputs[0], len(b.shape(inputs[0]))
    axes = range(integer(node, "axis", -1) % rank, rank)
    power = reduce(b, "ReduceMean", squared(b, x), axes, True)
    y = b.add("Mul", x, inverse_deviation(b, power, number(node, "epsilon", 1e-5)))
    return affine(b, y, given(inputs, 1), "")


@rewrite("InstanceNormalization")
def instance_normalization(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    shape = b.shape(inputs[0])
    y, *_ = standardised(b, inputs[0], range(2, len(shape)), number(node, "epsilon", 1e-5))
    return affine(b, y, spread(b, inputs[1], shape), spread(b, inputs[2], shape))


@rewrite("GroupNormalization")
def group_normalization(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Scale and bias hold one value per group (opset 18) or per channel (opset 21)."""
    x, shape, groups = inputs[0], b.shape(inputs[0]), integer(node, "num_groups", 1)
    grouped = reshape(b, x, (shape[0], groups, b.type(x).size // (shape[0] * groups)))
    y, *_ = standardised(b, grouped, (2,), number(node, "epsilon", 1e-5))
    scale, bias = (spread(b, _per_channel(b, t, groups, shape[1]), shape) for t in inputs[1:3])
    return affine(b, reshape(b, y, shape), scale, bias)


def _per_channel(b: GraphBuilder, vector: str, groups: int, channels: int) -> str:
    if b.shape(vector) == (channels,):
        return vector
    return reshape(b, expand(b, reshape(b, vector, (groups, 1)), (groups, channels // groups)), (channels,))


@rewrite("MeanVarianceNormalization")
def mean_variance_normalization(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    axes = integers(node, "axes", (0, 2, 3))
    rank = len(b.shape(inputs[0]))
    return standardised(b, inputs[0], sorted(a % rank for a in axes), 1e-9)[0]


@rewrite("LpNormalization")
def lp_normalization(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x = inputs[0]
    axes = [integer(node, "axis", -1) % len(b.shape(x))]
    if integer(node, "p", 2) == 1:
        return b.add("Div", x, reduce(b, "ReduceSum", b.add("Abs", x), axes, True))
    return b.add("Div", x, b.add("Sqrt", reduce(b, "ReduceSum", squared(b, x), axes, True)))
