# SPDX-License-Identifier: Apache-2.0
"""Operators that work element by element."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.lowering.broadcast import elementwise, spread
from edgefl.converters.targets.coreml.lowering.registry import LOWERINGS, Call, lowering
from edgefl.converters.targets.coreml.lowering.value import Value

_ONE = np.array([1.0], np.float32)
_ZERO = np.array([0.0], np.float32)


def _two(name: str) -> Callable[[Any, Any], Any]:
    return lambda x, y: getattr(mb, name)(x=x, y=y)


_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Max": "maximum", "Min": "minimum", "Sum": "add"}
_COMPARE = {
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
}
_LOGICAL = {"And": "logical_and", "Or": "logical_or", "Xor": "logical_xor"}

_NATIVE = {
    "Abs": "abs",
    "Sign": "sign",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Erf": "erf",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
    "Relu": "relu",
    "Softsign": "softsign",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Identity": "identity",
}


def softplus(x: Any) -> Any:
    """log(1 + e^x) without overflow."""
    tail = mb.add(x=mb.exp(x=mb.mul(x=mb.abs(x=x), y=-1.0)), y=1.0)
    return mb.add(x=mb.relu(x=x), y=mb.log(x=tail))


_COMPOSED: dict[str, Callable[[Any], Any]] = {
    "Log": lambda x: mb.log(x=x),
    "Reciprocal": lambda x: mb.real_div(x=_ONE, y=x),
    "Softplus": softplus,
    "HardSwish": lambda x: mb.mul(x=x, y=mb.sigmoid_hard(x=x, alpha=1 / 6, beta=0.5)),
}


def _unary(function: Callable[[Any], Any]) -> Callable[[Call], Value]:
    return lambda call: call[0].become(function(call[0].data), call[0].shape)


def _native(name: str) -> Callable[[Any], Any]:
    return lambda x: getattr(mb, name)(x=x)


def _fold(function: Callable[[Any, Any], Any]) -> Callable[[Call], Value]:
    return lambda call: reduce(lambda a, b: elementwise(function, a, b), call.all)


def _compare(name: str) -> Callable[[Call], Value]:
    return lambda call: elementwise(_two(name), *map(number, call.all), kind="b")


LOWERINGS.update({op: _fold(_two(name)) for op, name in (*_BINARY.items(), *_LOGICAL.items())})
LOWERINGS.update({op: _unary(_native(name)) for op, name in _NATIVE.items()})
LOWERINGS.update({op: _unary(function) for op, function in _COMPOSED.items()})
LOWERINGS.update({op: _compare(name) for op, name in _COMPARE.items()})


def cast(value: Value, kind: str) -> Value:
    """The value with elements of another kind; floats are cut to whole numbers."""
    if value.kind == kind:
        return value
    if value.is_constant:
        dtype = {"f": np.float32, "i": np.int32, "b": np.bool_}[kind]
        return Value(value.data.astype(dtype), value.shape, kind)
    return Value(
        mb.cast(x=value.data, dtype={"f": "fp32", "i": "int32", "b": "bool"}[kind]), value.shape, kind
    )


def number(value: Value) -> Value:
    """Truth values as 0 and 1: most operators know only numbers."""
    return cast(value, "i") if value.kind == "b" else value


@lowering("Neg")
def _neg(call: Call) -> Value:
    minus = np.array([-1], np.int32 if call[0].kind == "i" else np.float32)
    return call[0].become(mb.mul(x=call[0].data, y=minus), call[0].shape)


@lowering("Not")
def _not(call: Call) -> Value:
    return call[0].become(mb.logical_not(x=call[0].data), call[0].shape)


@lowering("IsNaN")
def _is_nan(call: Call) -> Value:
    return Value(mb.not_equal(x=call[0].data, y=call[0].data), call[0].shape, "b")


@lowering("Div")
def _div(call: Call) -> Value:
    if call[0].kind == "f":
        return elementwise(_two("real_div"), *call.all)

    def cut(x: Any, y: Any) -> Any:
        whole = mb.floor_div(x=mb.abs(x=x), y=mb.abs(x=y))
        return mb.mul(x=whole, y=mb.mul(x=mb.sign(x=x), y=mb.sign(x=y)))

    return elementwise(cut, *call.all)


@lowering("Mod")
def _mod(call: Call) -> Value:
    """The remainder with the divisor's sign, or with `fmod` the dividend's."""
    if not call.attribute("fmod", 0):
        return elementwise(_two("mod"), *call.all)
    return elementwise(lambda x, y: mb.mul(x=mb.sign(x=x), y=mb.mod(x=mb.abs(x=x), y=mb.abs(x=y))), *call.all)


@lowering("Pow")
def _pow(call: Call) -> Value:
    """Powers; with a common exponent by operators that are exact for any base."""
    base, exponent = call[0], cast(call[1], "f")
    if exponent.is_constant and exponent.size == 1 and base.kind == "f":
        special = _POWERS.get(float(exponent.data.reshape(())))
        if special is not None:
            return spread(base.become(special(base.data), base.shape), call.shape)
    return elementwise(_two("pow"), cast(base, "f"), exponent)


_POWERS: dict[float, Callable[[Any], Any]] = {
    0.5: lambda x: mb.sqrt(x=x),
    1.0: lambda x: x,
    2.0: lambda x: mb.mul(x=x, y=x),
    3.0: lambda x: mb.mul(x=mb.mul(x=x, y=x), y=x),
    -1.0: lambda x: mb.real_div(x=_ONE, y=x),
}


@lowering("Where")
def _where(call: Call) -> Value:
    """Selection; Core ML takes the shape of the result from the two choices, so one of them must have it."""
    cond, a, b = call.all
    if np.broadcast_shapes(a.shape, b.shape) != call.shape:
        a, b = (
            (a, spread(b, call.shape)) if a.is_constant or not b.is_constant else (spread(a, call.shape), b)
        )
    if cond.is_constant:
        cond = spread(cond, call.shape)
    return elementwise(lambda c, x, y: mb.select(cond=c, a=x, b=y), cond, a, b, kind=a.kind)


@lowering("PRelu")
def _prelu(call: Call) -> Value:
    def sloped(x: Any, slope: Any) -> Any:
        return mb.add(x=mb.relu(x=x), y=mb.mul(x=mb.minimum(x=x, y=_ZERO), y=slope))

    return elementwise(sloped, call[0], call[1])


@lowering("Cast")
def _cast(call: Call) -> Value:
    kind = call.types[0].dtype.kind
    return cast(call[0], "i" if kind in "iu" else kind)


@lowering("Clip")
def _clip(call: Call) -> Value:
    value = call[0]
    if call.given(1):
        value = elementwise(_two("maximum"), value, call[1])
    return elementwise(_two("minimum"), value, call[2]) if call.given(2) else value


@lowering("LeakyRelu")
def _leaky_relu(call: Call) -> Value:
    alpha = np.float32(call.attribute("alpha", 0.01))
    return call[0].become(mb.leaky_relu(x=call[0].data, alpha=alpha), call[0].shape)


@lowering("Elu")
def _elu(call: Call) -> Value:
    alpha = np.float32(call.attribute("alpha", 1.0))
    return call[0].become(mb.elu(x=call[0].data, alpha=alpha), call[0].shape)


@lowering("HardSigmoid")
def _hard_sigmoid(call: Call) -> Value:
    alpha, beta = (np.float32(call.attribute(name, d)) for name, d in (("alpha", 0.2), ("beta", 0.5)))
    return call[0].become(mb.sigmoid_hard(x=call[0].data, alpha=alpha, beta=beta), call[0].shape)
