# SPDX-License-Identifier: Apache-2.0
"""Gradients of reading and writing by index, against torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgefl.converters.autodiff import Expr, gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.graph.interpreter import run
from edgefl.graph.model import TensorType
from tests.converters.autodiff_oracle import check, finish, graph_gradients, ints, normal, torch_gradients

INDICES = [ints(2), np.array(3), ints(0, 1, 2), ints(1, 3), ints(4, 0, 0, -1), np.array([[1, 1], [-2, 3]])]


@pytest.mark.parametrize("indices", INDICES, ids=str)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_of_constant_indices(indices, axis):
    x = normal(5, 6, 5)

    def expected(x):
        i = torch.tensor(indices)
        i = torch.where(i < 0, i + x.shape[axis], i)
        return x.movedim(axis, 0)[i].movedim(tuple(range(i.ndim)), tuple(range(axis % 3, axis % 3 + i.ndim)))

    check("Gather", expected, [x], indices, axis=axis)


@pytest.mark.parametrize("vocabulary", [7, 9000])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_embedding_of_given_indices(vocabulary, dtype):
    table = normal(vocabulary, 4)
    tokens = np.array([[1, 5, 5], [0, 6, -1], [5, 2, 3]] * 3, dtype)
    (expected,), seed = torch_gradients(lambda t: t[torch.tensor(tokens.astype(np.int64))], [table])
    b = GraphBuilder()
    b.input("table", TensorType.of(table))
    b.input("tokens", TensorType.of(tokens))
    y = Expr(b, b.add("Gather", "table", "tokens", axis=0))
    found = gradients(b, (y * y.constant(seed)).sum().name, ["table"])
    b.output("grad", found["table"])
    made = run(b.build(), {"table": table, "tokens": tokens})
    np.testing.assert_allclose(made["grad"], expected, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_elements(axis):
    indices = np.random.default_rng(0).integers(0, 3, (3, 4))
    check(
        "GatherElements", lambda x: x.gather(axis, torch.tensor(indices)), [normal(3, 4)], indices, axis=axis
    )


def test_gather_elements_of_one_per_row():
    indices = ints(3, -1, 0).reshape(3, 1)
    check("GatherElements", lambda x: x.gather(1, torch.tensor(indices % 4)), [normal(3, 4)], indices, axis=1)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(axis, largest):
    x = normal(4, 5)
    (expected,), seed = torch_gradients(lambda x: x.topk(3, axis, bool(largest))[0], [x])
    b = GraphBuilder()
    b.input("in0", TensorType.of(x))
    values, _ = b.add("TopK", "in0", b.constant(ints(3)), outputs=2, axis=axis, largest=largest)
    (found,) = finish(b, Expr(b, values), ["in0"], [x], seed)
    np.testing.assert_allclose(found, expected)


def test_gather_nd():
    indices = np.array([[0, 1], [2, 2], [0, 1]])
    check("GatherND", lambda x: x[indices[:, 0], indices[:, 1]], [normal(3, 4, 2)], indices)


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_nd(reduction):
    x, updates, indices = normal(4, 3), normal(2, 3, seed=9), np.array([[1], [3]])

    def expected(x, updates):
        return x.index_put((torch.tensor(indices[:, 0]),), updates, accumulate=reduction == "add")

    expected_gradients, seed = torch_gradients(expected, [x, updates])
    found = graph_gradients("ScatterND", [x, indices, updates], seed, reduction=reduction)
    for f, e in zip(found, expected_gradients, strict=True):
        np.testing.assert_allclose(f, e)


@pytest.mark.parametrize("reduction", ["none", "add"])
def test_scatter_elements(reduction):

    x, updates, indices = normal(4, 3), normal(2, 3, seed=9), np.array([[1, 0, 3], [3, 2, 0]])

    def expected(x, updates):
        write = torch.Tensor.scatter_add if reduction == "add" else torch.Tensor.scatter
        return write(x, 0, torch.tensor(indices), updates)

    expected_gradients, seed = torch_gradients(expected, [x, updates])
    found = graph_gradients("ScatterElements", [x, indices, updates], seed, axis=0, reduction=reduction)
    for f, e in zip(found, expected_gradients, strict=True):
        np.testing.assert_allclose(f, e)
