# SPDX-License-Identifier: Apache-2.0
"""Activation functions. Formulas are those of the ONNX operator specification, in the input's own dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgefl.graph.kernels.arguments import integer, real, required, same_dtype, text
from edgefl.graph.kernels.error_function import erf
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array

_Formula = Callable[..., Any]


def _register(name: str, formula: _Formula, **defaults: float) -> None:
    """Register `formula(x, **attributes)`, attributes given as scalars of the input's dtype."""

    @kernel(name, elementwise=True)
    def activation(inputs: Inputs, attributes: Attributes) -> Outputs:
        x = required(inputs)
        values = {key: x.dtype.type(real(attributes, key, default)) for key, default in defaults.items()}
        return (np.asarray(formula(x, **values), x.dtype),)


def _zero(x: Array) -> Any:
    return x.dtype.type(0)


def _one(x: Array) -> Any:
    return x.dtype.type(1)


def _relu(x: Array) -> Any:
    return np.maximum(x, _zero(x))


def _sigmoid(x: Array) -> Any:
    return _one(x) / (_one(x) + np.exp(-x))


def _softplus(x: Array) -> Any:
    return _relu(x) + np.log1p(np.exp(-np.abs(x)))


def _leaky_relu(x: Array, alpha: Any) -> Any:
    return np.where(x < 0, alpha * x, x)


def _elu(x: Array, alpha: Any) -> Any:
    return np.where(x < 0, alpha * np.expm1(np.minimum(x, _zero(x))), x)


def _celu(x: Array, alpha: Any) -> Any:
    return _relu(x) + np.minimum(_zero(x), alpha * np.expm1(x / alpha))


def _selu(x: Array, alpha: Any, gamma: Any) -> Any:
    return gamma * _elu(x, alpha)


def _hard_sigmoid(x: Array, alpha: Any, beta: Any) -> Any:
    return np.clip(alpha * x + beta, _zero(x), _one(x))


def _hard_swish(x: Array) -> Any:
    return x * _hard_sigmoid(x, x.dtype.type(1 / 6), x.dtype.type(0.5))


def _mish(x: Array) -> Any:
    return x * np.tanh(_softplus(x))


def _thresholded_relu(x: Array, alpha: Any) -> Any:
    return np.where(x > alpha, x, _zero(x))


def _softsign(x: Array) -> Any:
    return x / (_one(x) + np.abs(x))


def _shrink(x: Array, bias: Any, lambd: Any) -> Any:
    return np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, _zero(x)))


_register("Relu", _relu)
_register("Sigmoid", _sigmoid)
_register("Softplus", _softplus)
_register("Softsign", _softsign)
_register("Erf", erf)
_register("HardSwish", _hard_swish)
_register("Mish", _mish)
_register("LeakyRelu", _leaky_relu, alpha=0.01)
_register("Elu", _elu, alpha=1.0)
_register("Celu", _celu, alpha=1.0)
_register("Selu", _selu, alpha=1.6732632423543772, gamma=1.0507009873554805)
_register("HardSigmoid", _hard_sigmoid, alpha=0.2, beta=0.5)
_register("ThresholdedRelu", _thresholded_relu, alpha=1.0)
_register("Shrink", _shrink, bias=0.0, lambd=0.5)


@kernel("Gelu", elementwise=True)
def gelu(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Gaussian error linear unit, exact or with the tanh approximation (an opset 20 operator)."""
    x = required(inputs)
    scalar = x.dtype.type
    if text(attributes, "approximate", "none") == "tanh":
        inner = np.tanh(scalar(np.sqrt(2 / np.pi)) * (x + scalar(0.044715) * x * x * x))
    else:
        inner = erf(x * scalar(np.sqrt(0.5)))
    return (np.asarray(scalar(0.5) * x * (scalar(1) + inner), x.dtype),)


@kernel("PRelu")
def p_relu(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Leaky rectifier with a slope tensor that broadcasts to the input."""
    x, slope = required(inputs), required(inputs, 1)
    same_dtype(x, slope)
    return (np.asarray(np.where(x < 0, slope * x, x)),)


@kernel("Softmax")
def softmax(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, axis = required(inputs), integer(attributes, "axis", -1)
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return (np.asarray(e / np.sum(e, axis=axis, keepdims=True)),)


@kernel("LogSoftmax")
def log_softmax(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, axis = required(inputs), integer(attributes, "axis", -1)
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return (np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))),)


@kernel("Hardmax")
def hardmax(inputs: Inputs, attributes: Attributes) -> Outputs:
    """One at the first maximum along the axis, zero elsewhere."""
    x, axis = required(inputs), integer(attributes, "axis", -1)
    first = np.expand_dims(np.argmax(x, axis=axis), axis)
    out = np.zeros_like(x)
    np.put_along_axis(out, first, x.dtype.type(1), axis)
    return (out,)
