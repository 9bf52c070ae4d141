# SPDX-License-Identifier: Apache-2.0
"""Arithmetic, comparisons, logic and casts, element by element. Outputs keep the inputs' dtype."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from edgefl.graph.kernels.arguments import integer, optional, present, required, same_dtype
from edgefl.graph.kernels.registry import Attributes, Inputs, Outputs, kernel
from edgefl.graph.model import Array
from edgefl.graph.onnx_schema import DTYPES

_UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": np.abs,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "BitwiseNot": np.invert,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Exp": np.exp,
    "Floor": np.floor,
    "Identity": lambda x: x,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": lambda x: np.divide(x.dtype.type(1), x),
    "Round": np.rint,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Sqrt": np.sqrt,
    "Tan": np.tan,
    "Tanh": np.tanh,
}


def _divide(a: Array, b: Array) -> Array:
    """Quotient; integers truncate towards zero."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.divide(a, b))
    quotient = np.asarray(np.floor_divide(a, b))
    inexact = np.multiply(quotient, b) != a
    return np.where(inexact & ((a < 0) != (b < 0)), quotient + quotient.dtype.type(1), quotient)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "Div": _divide,
    "Mul": np.multiply,
    "Sub": np.subtract,
}

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}


def _register_unary(name: str, function: Callable[[Any], Any]) -> None:
    @kernel(name, elementwise=True)
    def unary(inputs: Inputs, attributes: Attributes) -> Outputs:
        x = required(inputs)
        return (np.asarray(function(x), x.dtype),)


def _register_binary(name: str, function: Callable[[Any, Any], Any], boolean: bool) -> None:
    @kernel(name, elementwise=True)
    def binary(inputs: Inputs, attributes: Attributes) -> Outputs:
        a, b = required(inputs), required(inputs, 1)
        dtype = same_dtype(a, b)
        return (np.asarray(function(a, b), np.bool_ if boolean else dtype),)


for _name, _function in _UNARY.items():
    _register_unary(_name, _function)
for _name, _pair in _BINARY.items():
    _register_binary(_name, _pair, boolean=False)
for _name, _pair in _COMPARE.items():
    _register_binary(_name, _pair, boolean=True)


@kernel("Pow", elementwise=True)
def power(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Base to the exponent, in the base's dtype; the exponent may be of another dtype."""
    base, exponent = required(inputs), required(inputs, 1)
    if base.dtype.kind == "f":
        exponent = exponent.astype(base.dtype, copy=False)
    return (np.asarray(np.power(base, exponent)).astype(base.dtype, copy=False),)


@kernel("Mod", elementwise=True)
def modulo(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Remainder with the divisor's sign, or with the dividend's when `fmod` is 1."""
    a, b = required(inputs), required(inputs, 1)
    function = np.fmod if integer(attributes, "fmod", 0) else np.mod
    return (np.asarray(function(a, b), same_dtype(a, b)),)


@kernel("BitShift", elementwise=True)
def shift(inputs: Inputs, attributes: Attributes) -> Outputs:
    a, b = required(inputs), required(inputs, 1)
    function = np.left_shift if attributes.get("direction") == "LEFT" else np.right_shift
    return (np.asarray(function(a, b), same_dtype(a, b)),)


def _fold(inputs: Inputs, function: Callable[[Any, Any], Any]) -> Array:
    arrays = present(inputs)
    return np.asarray(reduce(function, arrays), same_dtype(*arrays))


@kernel("Sum", elementwise=True)
def total(inputs: Inputs, attributes: Attributes) -> Outputs:
    return (_fold(inputs, np.add),)


@kernel("Mean", elementwise=True)
def mean(inputs: Inputs, attributes: Attributes) -> Outputs:
    summed = _fold(inputs, np.add)
    return (np.asarray(summed / summed.dtype.type(len(inputs))),)


@kernel("Min", elementwise=True)
def minimum(inputs: Inputs, attributes: Attributes) -> Outputs:
    return (_fold(inputs, np.minimum),)


@kernel("Max", elementwise=True)
def maximum(inputs: Inputs, attributes: Attributes) -> Outputs:
    return (_fold(inputs, np.maximum),)


@kernel("Clip", batchwise=True)
def clip(inputs: Inputs, attributes: Attributes) -> Outputs:
    x, low, high = required(inputs), optional(inputs, 1), optional(inputs, 2)
    same_dtype(x, low, high)
    x = x if low is None else np.maximum(x, low.reshape(()))
    return (np.asarray(x if high is None else np.minimum(x, high.reshape(()))),)


@kernel("Where", elementwise=True)
def where(inputs: Inputs, attributes: Attributes) -> Outputs:
    condition, a, b = present(inputs)
    same_dtype(a, b)
    if condition.dtype != np.bool_:
        raise TypeError(f"the condition must be bool, given {condition.dtype}")
    return (np.where(condition, a, b),)


@kernel("IsNaN", elementwise=True)
def is_nan(inputs: Inputs, attributes: Attributes) -> Outputs:
    return (np.asarray(np.isnan(required(inputs))),)


@kernel("IsInf", elementwise=True)
def is_inf(inputs: Inputs, attributes: Attributes) -> Outputs:
    """Infinities of the signs that `detect_negative` and `detect_positive` name, by default both."""
    x = required(inputs)
    found = np.isinf(x)
    if not integer(attributes, "detect_negative", 1):
        found = operator.and_(found, x > 0)
    if not integer(attributes, "detect_positive", 1):
        found = operator.and_(found, x < 0)
    return (np.asarray(found),)


@kernel("Cast", elementwise=True)
def cast(inputs: Inputs, attributes: Attributes) -> Outputs:
    code = integer(attributes, "to", 0)
    if code not in DTYPES:
        raise TypeError(f"no cast to element type {code}; allowed are {sorted(DTYPES)}")
    return (required(inputs).astype(DTYPES[code], copy=False),)


@kernel("CastLike")
def cast_like(inputs: Inputs, attributes: Attributes) -> Outputs:
    return (required(inputs).astype(required(inputs, 1).dtype, copy=False),)


@kernel("Dropout")
def dropout(inputs: Inputs, attributes: Attributes) -> Outputs:
    """The input and an all-true mask; training mode is refused, since edgefl's graphs are stateless."""
    training = optional(inputs, 2)
    ratio = optional(inputs, 1)
    if (
        training is not None
        and bool(training.reshape(()))
        and (ratio is None or float(ratio.reshape(())) > 0)
    ):
        raise ValueError("Dropout in training mode is random; export the model in evaluation mode")
    x = required(inputs)
    return x, np.ones(x.shape, np.bool_)
