# SPDX-License-Identifier: Apache-2.0
"""Gradients of element-wise operators.

At kinks the value is PyTorch's: 0 for Relu and Abs at 0, half to each side of a tied Max or Min, inside at
the bounds of Clip, except that Clip to [0, 6] is ReLU6, flat at both bounds in PyTorch and TensorFlow.
"""

from __future__ import annotations

import math

from edgefl.converters.autodiff.expression import Expr, add_all
from edgefl.converters.autodiff.registry import Gradient, Op, elementwise, vjp

Gradients = tuple[Gradient, ...]


# -- arithmetic


@elementwise("Add")
def add(op: Op, dy: Expr) -> Gradients:
    return dy, dy


@elementwise("Sub")
def sub(op: Op, dy: Expr) -> Gradients:
    return dy, lambda: -dy


@elementwise("Mul")
def mul(op: Op, dy: Expr) -> Gradients:
    a, b = op.inputs
    return lambda: dy * b, lambda: dy * a


@elementwise("Div")
def div(op: Op, dy: Expr) -> Gradients:
    _, b = op.inputs
    return lambda: dy / b, lambda: -(dy / b * op.y)


@elementwise("Pow")
def power(op: Op, dy: Expr) -> Gradients:
    return lambda: _power_base(op, dy), lambda: _power_exponent(op, dy)


def _power_base(op: Op, dy: Expr) -> Expr:
    """`e x^(e - 1)`, zero where e is 0 whatever x is."""
    x, e = op.inputs[0], op.inputs[1].cast(dy.dtype)
    if e.value is not None and e.value.size == 1:
        return dy * _power_slope(x, float(e.value.reshape(())))
    slope = e * x ** (e - 1.0)
    return e.equals(0.0).where(slope.constant(0.0), dy * slope)


def _power_slope(x: Expr, e: float) -> Expr:
    if e in (0.0, 1.0):
        return x.constant(e)
    return x * 2.0 if e == 2 else e * x ** (e - 1)


def _power_exponent(op: Op, dy: Expr) -> Expr:
    """`x^e log x`, zero where x is 0."""
    x = op.inputs[0]
    safe = x.equals(0.0).where(x.constant(1.0), x)
    return dy * op.y * safe.log()


@vjp("Neg")
def neg(op: Op, dy: Expr) -> Gradients:
    return (-dy,)


@vjp("Reciprocal")
def reciprocal(op: Op, dy: Expr) -> Gradients:
    return (-(dy * op.y * op.y),)


@vjp("Sqrt")
def sqrt(op: Op, dy: Expr) -> Gradients:
    return (dy * 0.5 / op.y,)


@vjp("Exp")
def exp(op: Op, dy: Expr) -> Gradients:
    return (dy * op.y,)


@vjp("Log")
def log(op: Op, dy: Expr) -> Gradients:
    return (dy / op.x,)


@vjp("Sin")
def sin(op: Op, dy: Expr) -> Gradients:
    return (dy * op.x.apply("Cos"),)


@vjp("Cos")
def cos(op: Op, dy: Expr) -> Gradients:
    return (-(dy * op.x.apply("Sin")),)


@vjp("Tan")
def tan(op: Op, dy: Expr) -> Gradients:
    return (dy * (1.0 + op.y * op.y),)


@vjp("Sinh")
def sinh(op: Op, dy: Expr) -> Gradients:
    return (dy * op.x.apply("Cosh"),)


@vjp("Cosh")
def cosh(op: Op, dy: Expr) -> Gradients:
    return (dy * op.x.apply("Sinh"),)


@vjp("Asin")
def asin(op: Op, dy: Expr) -> Gradients:
    return (dy / (1.0 - op.x * op.x).sqrt(),)


@vjp("Acos")
def acos(op: Op, dy: Expr) -> Gradients:
    return (-(dy / (1.0 - op.x * op.x).sqrt()),)


@vjp("Atan")
def atan(op: Op, dy: Expr) -> Gradients:
    return (dy / (1.0 + op.x * op.x),)


@vjp("Asinh")
def asinh(op: Op, dy: Expr) -> Gradients:
    return (dy / (1.0 + op.x * op.x).sqrt(),)


@vjp("Acosh")
def acosh(op: Op, dy: Expr) -> Gradients:
    return (dy / (op.x * op.x - 1.0).sqrt(),)


@vjp("Atanh")
def atanh(op: Op, dy: Expr) -> Gradients:
    return (dy / (1.0 - op.x * op.x),)


@vjp("Erf")
def erf(op: Op, dy: Expr) -> Gradients:
    return (dy * (-(op.x * op.x)).exp() * (2 / math.sqrt(math.pi)),)


@vjp("Abs")
def absolute(op: Op, dy: Expr) -> Gradients:
    return (dy * op.x.apply("Sign"),)


@vjp("Identity")
def identity(op: Op, dy: Expr) -> Gradients:
    return (dy,)


@vjp("Cast")
def cast(op: Op, dy: Expr) -> Gradients:
    """Between floating-point types only: a cast to integers is not on any path."""
    return (dy.cast(op.x.dtype),)


# -- choices


@elementwise("Where")
def where(op: Op, dy: Expr) -> Gradients:
    condition = op.inputs[0]
    zero = dy.constant(0.0)
    return None, lambda: condition.keep(dy), lambda: condition.where(zero, dy)


@elementwise("Max", "Min")
def extreme(op: Op, dy: Expr) -> Gradients:
    """Shared equally among the inputs that reach the extreme."""
    if len(op.inputs) == 1:
        return (dy,)
    hits = [t.equals(op.y).cast(dy.dtype) for t in op.inputs]
    share = dy / add_all([h.expand(dy.shape) if h.shape != dy.shape else h for h in hits])
    return tuple(share * h for h in hits)


@vjp("Clip")
def clip(op: Op, dy: Expr) -> Gradients:
    bounds = [op.input(i) if op.has(i) else None for i in (1, 2)]
    inside = _between(op.y, 0.0, 6.0) if _is_relu6(bounds) else op.y.equals(op.x)
    return (dy * inside.cast(dy.dtype),) + (None,) * (len(op.node.inputs) - 1)


def _is_relu6(bounds: list[Expr | None]) -> bool:
    values = [None if b is None else b.value for b in bounds]
    return all(v is not None and v == bound for v, bound in zip(values, (0, 6), strict=True))


# -- activations


@vjp("Relu")
def relu(op: Op, dy: Expr) -> Gradients:
    return (dy * op.y.greater(0.0).cast(dy.dtype),)


@vjp("LeakyRelu")
def leaky_relu(op: Op, dy: Expr) -> Gradients:
    return (op.x.greater(0.0).where(dy, dy * op.real("alpha", 0.01)),)


@vjp("Elu")
def elu(op: Op, dy: Expr) -> Gradients:
    alpha = op.real("alpha", 1.0)
    return (op.x.greater(0.0).where(dy, dy * (op.y + alpha)),)


@vjp("Tanh")
def tanh(op: Op, dy: Expr) -> Gradients:
    return (dy * (1.0 - op.y * op.y),)


@vjp("Sigmoid")
def sigmoid(op: Op, dy: Expr) -> Gradients:
    return (dy * op.y * (1.0 - op.y),)


@vjp("Softplus")
def softplus(op: Op, dy: Expr) -> Gradients:
    return (dy * op.x.sigmoid(),)


@vjp("HardSigmoid")
def hard_sigmoid(op: Op, dy: Expr) -> Gradients:
    sloped = _between(op.y, 0.0, 1.0)
    return (sloped.keep(dy * op.real("alpha", 0.2)),)


def _between(x: Expr, low: float, high: float) -> Expr:
    return x.greater(low).apply("And", x.less(high))
