# SPDX-License-Identifier: Apache-2.0
"""Gradients of reductions, softmax and cumulative sums against torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.converters.autodiff_oracle import check, ints, normal

AXES = [(1,), (0, 2), (-1,), (0, 1, 2), (-2, 0)]


REDUCTIONS = {
    "ReduceSum": lambda x, a, k: x.sum(a, k),
    "ReduceMean": lambda x, a, k: x.mean(a, k),
    "ReduceMax": lambda x, a, k: x.amax(a, k),
    "ReduceMin": lambda x, a, k: x.amin(a, k),
    "ReduceSumSquare": lambda x, a, k: (x * x).sum(a, k),
    "ReduceL1": lambda x, a, k: x.abs().sum(a, k),
    "ReduceL2": lambda x, a, k: torch.linalg.vector_norm(x, dim=a, keepdim=k),
    "ReduceLogSumExp": lambda x, a, k: torch.logsumexp(x, a, k),
}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("op", REDUCTIONS)
def test_reductions(op, axes, keep):
    check(op, lambda x: REDUCTIONS[op](x, axes, bool(keep)), [normal(3, 4, 5)], ints(*axes), keepdims=keep)


def test_all_axes_when_none_are_given():
    check("ReduceMean", lambda x: x.mean((0, 1, 2), keepdim=True), [normal(2, 3, 4)])


def test_no_axes_may_mean_no_reduction():
    check("ReduceSum", lambda x: x * 1, [normal(2, 3)], ints(), noop_with_empty_axes=1)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_ties_share(op):
    check(op, lambda x: REDUCTIONS[op](x, (1,), False), [np.round(normal(6, 8))], ints(1), keepdims=0)


def test_norm_of_zero():
    x = np.zeros((2, 3))
    x[0] = 1
    check("ReduceL2", lambda x: torch.linalg.vector_norm(x, dim=1), [x], ints(1), keepdims=0)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis):
    check("Softmax", lambda x: torch.softmax(x, axis), [normal(3, 4, 5)], axis=axis)
    check("LogSoftmax", lambda x: torch.log_softmax(x, axis), [normal(3, 4, 5)], axis=axis)


def test_softmax_of_masked_rows():
    x = normal(4, 5)
    x[:, 3:] = -1e9
    check("Softmax", lambda x: torch.softmax(x, -1), [x])


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
def test_cumulative_sum(reverse, exclusive):
    def expected(x):
        y = x.flip(1) if reverse else x
        total = y.cumsum(1) - (y if exclusive else 0)
        return total.flip(1) if reverse else total

    check("CumSum", expected, [normal(3, 5)], np.array(1), reverse=reverse, exclusive=exclusive)
