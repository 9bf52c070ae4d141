# SPDX-License-Identifier: Apache-2.0
"""Gradients of matrix products against torch autograd."""

from __future__ import annotations

import pytest
import torch

from tests.converters.autodiff_oracle import check, normal


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 5)),
        ((4,), (4,)),
        ((4,), (4, 5)),
        ((3, 4), (4,)),
        ((2, 3, 4), (4, 5)),
        ((2, 6, 3, 4), (4, 5)),
        ((3, 4), (2, 4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (6, 4, 5)),
        ((1, 3, 4), (7, 4, 5)),
        ((2, 3, 4), (4,)),
        ((4,), (2, 4, 5)),
        ((2, 3, 2, 3, 4), (2, 3, 2, 4, 5)),
    ],
)
def test_matmul(a, b):
    check("MatMul", torch.matmul, [normal(*a), normal(*b)])


@pytest.mark.parametrize("flags", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("bias", [(3, 5), (5,), (1, 1), ()])
def test_gemm(flags, bias):
    a = normal(4, 3) if flags[0] else normal(3, 4)
    b = normal(5, 4) if flags[1] else normal(4, 5)

    def expected(a, b, c):
        return 0.5 * (a.T if flags[0] else a) @ (b.T if flags[1] else b) + 2.0 * c

    check("Gemm", expected, [a, b, normal(*bias)], transA=flags[0], transB=flags[1], alpha=0.5, beta=2.0)
