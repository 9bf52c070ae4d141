# SPDX-License-Identifier: Apache-2.0
"""Gradients of element-wise operators against torch autograd, kinks and broadcasting included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from tests.converters.autodiff_oracle import check, normal

F = torch.nn.functional

EDGES = np.array([-7.0, -6.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.999, 5.0, 6.0, 7.0])

UNARY = {
    "Neg": torch.neg,
    "Abs": torch.abs,
    "Exp": torch.exp,
    "Sin": torch.sin,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "Relu": torch.relu,
    "Softplus": lambda x: F.softplus(x, threshold=50),
    "Identity": lambda x: x,
}


@pytest.mark.parametrize("op", UNARY)
def test_unary(op):
    check(op, UNARY[op], [EDGES])


@pytest.mark.parametrize(
    ("op", "function"),
    [("Log", torch.log), ("Sqrt", torch.sqrt), ("Reciprocal", torch.reciprocal)],
)
def test_unary_on_positive_numbers(op, function):
    check(op, function, [np.abs(normal(3, 5)) + 0.1])


@pytest.mark.parametrize(
    ("op", "function", "attributes"),
    [
        ("LeakyRelu", lambda x: F.leaky_relu(x, 0.2), {"alpha": 0.2}),
        ("LeakyRelu", F.leaky_relu, {}),
        ("Elu", lambda x: F.elu(x, 0.7), {"alpha": 0.7}),
        ("Elu", F.elu, {}),
        ("HardSigmoid", lambda x: F.relu6(x + 3) / 6, {"alpha": 1 / 6, "beta": 0.5}),
    ],
)
def test_activations_with_attributes(op, function, attributes):
    check(op, function, [EDGES], **attributes)


def test_softplus_far_from_zero():
    check("Softplus", lambda x: F.softplus(x, threshold=1e9), [np.array([-700.0, -40.0, 40.0, 700.0])])


BINARY = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Max": torch.maximum,
    "Min": torch.minimum,
}


@pytest.mark.parametrize("op", BINARY)
@settings(max_examples=25, deadline=None)
@given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=6, max_side=3))
def test_binary_broadcasting(op, shapes):
    a, b = (normal(*s, seed=i) for i, s in enumerate(shapes.input_shapes))
    check(op, BINARY[op], [a, b])


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_tied_extremes_share(op):
    a = np.array([1.0, 2.0, 2.0, -1.0])
    check(op, BINARY[op], [a, np.array([1.0, 1.0, 2.0, 0.0])])


def test_max_of_one():
    check("Max", lambda x: x * 1, [normal(3)])


def test_max_of_three():
    def expected(a, b, c):
        return torch.stack([a, b, c]).amax(0)

    tied = np.round(normal(3, 4, 5) * 2)
    check("Max", expected, [tied[0], tied[1], tied[2]])


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 2.5])
def test_power_with_constant_exponent(exponent):
    check("Pow", lambda x: x**exponent, [np.abs(normal(4)) + 0.1], np.array(exponent))


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_power_of_negative_and_zero(exponent):
    check("Pow", lambda x: x**exponent, [EDGES], np.array(exponent))


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 4), (4,)), ((4,), (3, 1))])
def test_power_with_trained_exponent(shapes):
    check("Pow", torch.pow, [np.abs(normal(*shapes[0])) + 0.1, normal(*shapes[1])])


def test_power_of_zero_with_trained_exponent():
    check("Pow", torch.pow, [np.array([0.0, 0.0, 2.0, 0.0]), np.array([2.0, 0.0, 0.0, 1.0])])


@pytest.mark.parametrize(
    ("low", "high", "function"),
    [
        (-1.0, 2.999, lambda x: torch.clamp(x, -1.0, 2.999)),
        (0.0, 6.0, F.relu6),
        (-0.5, 5.0, lambda x: torch.clamp(x, -0.5, 5.0)),
    ],
)
def test_clip(low, high, function):
    check("Clip", function, [EDGES], np.array(low), np.array(high))


def test_clip_below_only():
    check("Clip", lambda x: torch.clamp(x, min=1.0), [EDGES], np.array(1.0))


@pytest.mark.parametrize("shapes", [((4, 5), (4, 5)), ((4, 5), (5,)), ((), (4, 5)), ((5,), (4, 1))])
def test_where(shapes):
    condition = normal(4, 5) > 0
    given = [normal(*shapes[0]), normal(*shapes[1], seed=1)]

    def expected(c, a, b):
        return torch.where(c, a, b)

    check("Where", expected, [condition, *given])


def test_where_does_not_leak_the_infinite_branch():
    x = np.array([0.0, 4.0])

    def expected(c, a, b):
        return torch.where(c, a, b)

    check("Where", expected, [x > 1, np.array([np.inf, 1.0]), x])
