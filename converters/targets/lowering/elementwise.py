# SPDX-License-Identifier: Apache-2.0
"""Operators that work element by element and so in any layout."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.broadcast import elementwise
from edgefl.converters.targets.lowering.registry import LOWERINGS, Call, lowering
from edgefl.converters.targets.lowering.value import Lazy

_BINARY: dict[str, Callable[..., Any]] = {
    # The plain operators: what `tf.add` does for Python's numbers takes longer than making one of these.
    "Add": lambda x, y: tf.raw_ops.AddV2(x=x, y=y),
    "Sub": lambda x, y: tf.raw_ops.Sub(x=x, y=y),
    "Mul": lambda x, y: tf.raw_ops.Mul(x=x, y=y),
    "Div": lambda x, y: tf.raw_ops.Div(x=x, y=y),
    "Equal": tf.equal,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "And": tf.logical_and,
    "Or": tf.logical_or,
    "Xor": tf.not_equal,
    "Where": tf.where,
    "PRelu": lambda x, slope: tf.where(x < 0, x * slope, x),
}

_UNARY: dict[str, Callable[[Any], Any]] = {
    "Identity": tf.identity,
    "Neg": tf.negative,
    "Abs": tf.abs,
    "Sign": tf.sign,
    "Exp": tf.exp,
    "Log": tf.math.log,
    "Sqrt": tf.sqrt,
    "Reciprocal": lambda x: 1.0 / x,
    "Tanh": lambda x: tf.raw_ops.Tanh(x=x),
    "Sigmoid": lambda x: tf.raw_ops.Sigmoid(x=x),
    "Relu": tf.nn.relu,
    "HardSwish": lambda x: x * tf.clip_by_value(x / 6.0 + 0.5, 0.0, 1.0),
    "Softplus": lambda x: tf.nn.relu(x) + tf.math.log(1.0 + tf.exp(-tf.abs(x))),
    "Softsign": lambda x: x / (1.0 + tf.abs(x)),
    "Floor": tf.floor,
    "Ceil": tf.math.ceil,
    "Round": tf.round,
    "Sin": tf.sin,
    "Cos": tf.cos,
    "Not": tf.logical_not,
    "Tan": lambda x: tf.sin(x) / tf.cos(x),
    "Sinh": lambda x: 0.5 * (tf.exp(x) - tf.exp(-x)),
    "Cosh": lambda x: 0.5 * (tf.exp(x) + tf.exp(-x)),
    "Atan": lambda x: tf.math.atan2(x, tf.ones_like(x)),
    "Asin": lambda x: tf.math.atan2(x, tf.sqrt(1.0 - x * x)),
    "Acos": lambda x: tf.math.atan2(tf.sqrt(1.0 - x * x), x),
    "IsNaN": lambda x: tf.not_equal(x, x),
}

_ERF_NUMERATOR = (
    -1.3202092668448489e-08,
    4.684748986763239e-06,
    3.796079263701901e-04,
    3.8496140421646788e-03,
    5.4316905732748104e-02,
    0.18520335324469092,
    1.1283791693738643,
)
_ERF_DENOMINATOR = (
    6.311031029714003e-05,
    1.3075691364774252e-03,
    1.5462091347610367e-02,
    0.11395845010240037,
    0.4974656121372512,
    1.0,
)


def _binary(function: Callable[..., Any]) -> Callable[[Call], Lazy]:
    return lambda call: elementwise(function, *call.values)


def _unary(function: Callable[[Any], Any]) -> Callable[[Call], Lazy]:
    return lambda call: Lazy(function(call[0].data), call[0].order)


LOWERINGS.update({name: _binary(function) for name, function in _BINARY.items()})
LOWERINGS.update({name: _unary(function) for name, function in _UNARY.items()})


@lowering("Min", "Max", "Sum")
def _extreme(call: Call) -> Lazy:
    function = {"Min": tf.minimum, "Max": tf.maximum, "Sum": tf.add}[call.node.op]
    return reduce(lambda a, b: elementwise(function, a, b), call.values)


@lowering("Pow")
def _pow(call: Call) -> Lazy:
    """Powers; with an exponent of 2 or 0.5 by the operators that are fast and exact for any base."""
    base, exponent = call[0], call[1]
    if isinstance(exponent.data, np.ndarray) and exponent.size == 1:
        special = {2.0: tf.square, 0.5: tf.sqrt, 1.0: tf.identity}.get(float(exponent.data.reshape(())))
        if special is not None:
            return elementwise(lambda x, _: special(x), base, exponent)
    return elementwise(lambda x, y: tf.pow(x, tf.cast(y, x.dtype)), base, exponent)


@lowering("Mod")
def _mod(call: Call) -> Lazy:
    """The remainder with the divisor's sign, or with `fmod` the dividend's."""
    if not call.attribute("fmod", 0):
        return elementwise(tf.math.floormod, *call.values)
    return elementwise(lambda x, y: tf.sign(x) * tf.math.floormod(tf.abs(x), tf.abs(y)), *call.values)


@lowering("Cast")
def _cast(call: Call) -> Lazy:
    value, target = call[0], held_dtype(call.types[0].dtype)
    if isinstance(value.data, np.ndarray):
        return Lazy(value.data.astype(target), value.order)
    if target == np.bool_:
        return elementwise(lambda x: tf.not_equal(x, tf.zeros((), x.dtype)), value)
    return Lazy(tf.cast(value.data, target), value.order)


@lowering("Clip")
def _clip(call: Call) -> Lazy:
    value = call[0]
    if call.given(1):
        value = elementwise(tf.maximum, value, call[1])
    return elementwise(tf.minimum, value, call[2]) if call.given(2) else value


@lowering("LeakyRelu")
def _leaky_relu(call: Call) -> Lazy:
    return Lazy(tf.nn.leaky_relu(call[0].data, float(call.attribute("alpha", 0.01))), call[0].order)


@lowering("Elu")
def _elu(call: Call) -> Lazy:
    """alpha * (exp(x) - 1) below zero."""
    x, alpha = call[0].data, float(call.attribute("alpha", 1.0))
    below = tf.nn.elu(x)
    return Lazy(below if alpha == 1.0 else tf.where(x > 0, x, alpha * below), call[0].order)


@lowering("Erf")
def _erf(call: Call) -> Lazy:
    """x P(x^2) / Q(x^2) on [-4, 4]; within 4e-7 of the error function in float32, relative and absolute.

    The coefficients are a reweighted rational least-squares fit of erf(x) / x at Chebyshev points.
    """
    x = tf.clip_by_value(call[0].data, -4.0, 4.0)
    square = x * x
    ratio = x * _horner(_ERF_NUMERATOR, square) / _horner(_ERF_DENOMINATOR, square)
    return Lazy(tf.clip_by_value(ratio, -1.0, 1.0), call[0].order)


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    """A polynomial, coefficients from the highest power down."""
    return reduce(lambda total, c: total * x + c, coefficients[2:], coefficients[0] * x + coefficients[1])


@lowering("HardSigmoid")
def _hard_sigmoid(call: Call) -> Lazy:
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    return Lazy(tf.clip_by_value(call[0].data * alpha + beta, 0.0, 1.0), call[0].order)


def held_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype a tensor of this dtype has inside the TFLite graph: 64-bit integers are held in 32 bits."""
    return np.dtype(np.int32) if dtype == np.int64 else dtype
