# SPDX-License-Identifier: Apache-2.0
"""Rewrites of activations into the few that every target and the autodiff know.

Formulas are those of the ONNX operator specification.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.arithmetic import scaled, squared
from edgefl.converters.normalize.registry import like, number, rewrite, text
from edgefl.graph.model import Node


@rewrite("Gelu")
def gelu(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x = inputs[0]
    inner = _tanh_inner(b, x) if text(node, "approximate", "none") == "tanh" else _erf_inner(b, x)
    return b.add("Mul", scaled(b, x, 0.5), b.add("Add", inner, like(b, x, 1.0)))


def _erf_inner(b: GraphBuilder, x: str) -> str:
    return b.add("Erf", scaled(b, x, math.sqrt(0.5)))


def _tanh_inner(b: GraphBuilder, x: str) -> str:
    cube = b.add("Mul", squared(b, x), x)
    return b.add("Tanh", scaled(b, b.add("Add", x, scaled(b, cube, 0.044715)), math.sqrt(2 / math.pi)))


@rewrite("Erfc")
def erfc(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Not an ONNX operator: what the TensorFlow exporter leaves of Keras's exact GELU."""
    return b.add("Sub", like(b, inputs[0], 1.0), b.add("Erf", inputs[0]))


@rewrite("HardSwish")
def hard_swish(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.add("Mul", inputs[0], b.add("HardSigmoid", inputs[0], alpha=1 / 6, beta=0.5))


@rewrite("Swish")
def swish(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.add("Mul", inputs[0], b.add("Sigmoid", scaled(b, inputs[0], number(node, "alpha", 1.0))))


@rewrite("Mish")
def mish(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.add("Mul", inputs[0], b.add("Tanh", b.add("Softplus", inputs[0])))


@rewrite("Softsign")
def softsign(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.add("Div", inputs[0], b.add("Add", b.add("Abs", inputs[0]), like(b, inputs[0], 1.0)))


@rewrite("PRelu")
def prelu(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x, slope = inputs
    return b.add("Sub", b.add("Relu", x), b.add("Mul", slope, b.add("Relu", b.add("Neg", x))))


@rewrite("Selu")
def selu(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    alpha, gamma = number(node, "alpha", 1.6732632), number(node, "gamma", 1.0507010)
    return scaled(b, b.add("Elu", inputs[0], alpha=alpha), gamma)


@rewrite("Celu")
def celu(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """`max(0, x) + min(0, alpha * (exp(x / alpha) - 1))`, that is an Elu of x / alpha, times alpha."""
    alpha = number(node, "alpha", 1.0)
    return scaled(b, b.add("Elu", scaled(b, inputs[0], 1 / alpha), alpha=1.0), alpha)


@rewrite("ThresholdedRelu")
def thresholded_relu(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x = inputs[0]
    return b.add("Where", b.add("Greater", x, like(b, x, number(node, "alpha", 1.0))), x, like(b, x, 0.0))


@rewrite("Shrink")
def shrink(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x, lambd, bias = inputs[0], number(node, "lambd", 0.5), number(node, "bias", 0.0)
    low = b.add(
        "Where", b.add("Less", x, like(b, x, -lambd)), b.add("Add", x, like(b, x, bias)), like(b, x, 0.0)
    )
    return b.add("Where", b.add("Greater", x, like(b, x, lambd)), b.add("Sub", x, like(b, x, bias)), low)
