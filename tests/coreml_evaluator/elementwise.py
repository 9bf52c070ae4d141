# SPDX-License-Identifier: Apache-2.0
"""Element-wise operations and activations of MIL."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused, Unsupported
from tests.coreml_evaluator.registry import op

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    return np.asarray(_erf(x.astype(np.float64)), np.float64).astype(x.dtype)


def sigmoid_of(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def softplus_of(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, np.zeros((), x.dtype)))


def _binary(name: str, function: Callable[[Array, Array], Any]) -> None:
    @op(name)
    def binary(x: Array, y: Array) -> Any:
        return function(x, y)


def _unary(name: str, function: Callable[[Array], Any]) -> None:
    @op(name)
    def unary(x: Array) -> Any:
        return function(x)


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind != "f":
        raise Unsupported("real_div of integers")
    return np.asarray(x / y)


for _name, _two in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "real_div": _divide, "floor_div":
    np.floor_divide, "mod": np.mod, "pow": np.power, "maximum": np.maximum, "minimum": np.minimum, "equal":
    np.equal, "not_equal": np.not_equal, "greater": np.greater, "greater_equal": np.greater_equal, "less":
    np.less, "less_equal": np.less_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}.items():  # fmt: skip
    _binary(_name, _two)

for _name, _one in {
    "abs": np.abs, "acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "atanh": np.arctanh, "ceil":
    np.ceil, "cos": np.cos, "cosh": np.cosh, "erf": erf, "exp": np.exp, "exp2": np.exp2, "floor": np.floor,
    "logical_not": np.logical_not, "round": np.round, "sign": np.sign, "sin": np.sin, "sinh": np.sinh,
    "sqrt": np.sqrt, "square": np.square, "tan": np.tan, "tanh": np.tanh, "identity": np.asarray, "relu":
    lambda x: np.maximum(x, 0), "relu6": lambda x: np.clip(x, 0, 6), "sigmoid": sigmoid_of, "silu": lambda
    x: x * sigmoid_of(x), "softplus": softplus_of, "softsign": lambda x: x / (1 + np.abs(x)),
}.items():  # fmt: skip
    _unary(_name, _one)


@op("log", constant="epsilon")
def log(x: Array, epsilon: Array | float = 1e-45) -> Array:
    return np.asarray(np.log(x + np.asarray(epsilon, x.dtype)))


@op("inverse", constant="epsilon")
def inverse(x: Array, epsilon: Array | float = 1e-4) -> Array:
    return np.asarray(1 / (x + np.asarray(epsilon, x.dtype)))


@op("rsqrt", constant="epsilon")
def rsqrt(x: Array, epsilon: Array | float = 1e-12) -> Array:
    return np.asarray(1 / np.sqrt(x + np.asarray(epsilon, x.dtype)))


@op("threshold", constant="alpha")
def threshold(x: Array, alpha: Array) -> Array:
    return np.maximum(x, alpha)


@op("clip", constant="alpha beta")
def clip(x: Array, alpha: Array, beta: Array) -> Array:
    return np.minimum(np.maximum(x, alpha), beta)


@op("clamped_relu", constant="alpha beta")
def clamped_relu(x: Array, alpha: Array, beta: Array) -> Array:
    return np.minimum(np.where(x >= 0, x, alpha * x), beta)


@op("leaky_relu", constant="alpha")
def leaky_relu(x: Array, alpha: Array) -> Array:
    return np.where(x >= 0, x, alpha * x)


@op("prelu", constant="alpha")
def prelu(x: Array, alpha: Array) -> Array:
    return np.where(x > 0, x, alpha.reshape(-1, *[1] * (x.ndim - 2)) * x)


@op("elu", constant="alpha")
def elu(x: Array, alpha: Array) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


@op("linear_activation", constant="alpha beta")
def linear_activation(x: Array, alpha: Array, beta: Array | float = 0.0) -> Array:
    return np.asarray(alpha * x + beta)


@op("scaled_tanh", constant="alpha beta")
def scaled_tanh(x: Array, alpha: Array | float = 1.0, beta: Array | float = 1.0) -> Array:
    return np.asarray(alpha * np.tanh(x * beta))


@op("sigmoid_hard", constant="alpha beta")
def sigmoid_hard(x: Array, alpha: Array | float = 0.2, beta: Array | float = 0.5) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


@op("softplus_parametric", constant="alpha beta")
def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    shape = (-1, *[1] * (x.ndim - 2))
    return np.asarray(alpha.reshape(shape) * softplus_of(beta.reshape(shape) * x))


@op("thresholded_relu", constant="alpha")
def thresholded_relu(x: Array, alpha: Array | float = 1.0) -> Array:
    return np.where(x >= alpha, x, 0)


@op("gelu", constant="mode")
def gelu(x: Array, mode: str = "EXACT") -> Array:
    if mode == "EXACT":
        return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))
    if mode == "TANH_APPROXIMATION":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    if mode == "SIGMOID_APPROXIMATION":
        return np.asarray(x * sigmoid_of(1.702 * x))
    raise Refused(f"gelu mode {mode!r}")


@op("softmax", constant="axis")
def softmax(x: Array, axis: Array | int = -1) -> Array:
    e = np.exp(x - x.max(axis=int(axis), keepdims=True))
    return np.asarray(e / e.sum(axis=int(axis), keepdims=True))


@op("cast", constant="dtype", own_type=True)
def cast(x: Array, dtype: str) -> Array:
    names = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}
    target = np.dtype(names.get(dtype, dtype))
    return x != 0 if target == np.bool_ else x.astype(target)


@op("select", same="a b")
def select(cond: Array, a: Array, b: Array) -> Array:
    if cond.dtype != np.bool_:
        raise Refused(f"select by a condition of {cond.dtype}, bool is asked")
    return np.where(cond, a, b)
