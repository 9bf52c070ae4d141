# SPDX-License-Identifier: Apache-2.0
"""Gradients of operators that move elements, against torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.converters.autodiff import Expr
from edgefl.converters.builder import GraphBuilder
from edgefl.graph.model import TensorType
from tests.converters.autodiff_oracle import check, finish, ints, normal, torch_gradients

F = torch.nn.functional


def test_reshape():
    check("Reshape", lambda x: x.reshape(3, 8), [normal(2, 3, 4)], ints(3, -1))


def test_flatten_squeeze_and_unsqueeze():
    check("Flatten", lambda x: x.reshape(6, 4), [normal(2, 3, 4)], axis=2)
    check("Squeeze", lambda x: x.squeeze(1), [normal(3, 1, 4)], ints(1))
    check("Unsqueeze", lambda x: x[:, None], [normal(3, 4)], ints(1))


@pytest.mark.parametrize("perm", [(2, 0, 1), (0, 2, 1), (1, 2, 0)])
def test_transpose(perm):
    check("Transpose", lambda x: x.permute(*perm), [normal(2, 3, 4)], perm=perm)


def test_transpose_reverses_by_default():
    check("Transpose", lambda x: x.permute(2, 1, 0), [normal(2, 3, 4)])


@pytest.mark.parametrize("axis", [1, -2])
def test_concat(axis):
    parts = [normal(2, n, 3) for n in (1, 4, 2)]
    check("Concat", lambda *x: torch.cat(x, 1), parts, axis=axis)


def test_split_with_an_unused_part():
    x = normal(2, 7)
    expected, seed = torch_gradients(lambda x: x[:, 2:5], [x])
    b = GraphBuilder()
    b.input("in0", TensorType.of(x))
    parts = b.add("Split", "in0", b.constant(ints(2, 3, 2)), outputs=3, axis=1)
    (found,) = finish(b, Expr(b, parts[1]), ["in0"], [x], seed)
    np.testing.assert_allclose(found, expected[0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slices(data):
    size = data.draw(st.integers(1, 9))
    step = data.draw(st.sampled_from([1, 2, 3, 5, -1, -2, -4]))
    start, stop = (data.draw(st.integers(-size - 1, size + 1)) for _ in "ab")
    read = np.arange(size)[slice(start, stop, step)]
    if read.size:
        x = normal(2, size, 2)
        check("Slice", lambda x: x[:, read.copy()], [x], *(ints(v) for v in (start, stop, 1, step)))


def test_slice_of_all_axes_by_default():
    check("Slice", lambda x: x[1:3, :-1], [normal(4, 5)], ints(1, 0), ints(3, -1))


def test_slice_reversed_to_the_very_start():
    far = -(1 << 62)
    check("Slice", lambda x: x.flip(0), [normal(4, 2)], ints(-1), ints(far), ints(0), ints(-1))


@pytest.mark.parametrize(
    ("mode", "torch_mode"), [("constant", "constant"), ("reflect", "reflect"), ("edge", "replicate")]
)
@pytest.mark.parametrize("pads", [(1, 2, 3, 1), (0, 1, 2, 0), (2, 0, 0, 2)])
def test_pad(mode, torch_mode, pads):
    left, right, top, bottom = pads
    widths = ints(0, 0, top, left, 0, 0, bottom, right)
    check("Pad", lambda x: F.pad(x, pads, mode=torch_mode), [normal(1, 2, 5, 4)], widths, mode=mode)


def test_pad_may_crop():
    check("Pad", lambda x: F.pad(x, (-1, 2, 1, -2)), [normal(6, 4)], ints(1, -1, -2, 2), mode="constant")


def test_pad_of_chosen_axes():
    check(
        "Pad",
        lambda x: F.pad(x, (1, 2)),
        [normal(3, 4)],
        ints(1, 2),
        np.array(0.0),
        ints(-1),
        mode="constant",
    )


@pytest.mark.parametrize(
    ("shape", "out"), [((3, 1), (2, 3, 4)), ((1,), (5,)), ((2, 3), (2, 3)), ((2, 1, 3), (1, 4, 1))]
)
def test_expand(shape, out):
    full = np.broadcast_shapes(shape, out)
    check("Expand", lambda x: x.expand(full), [normal(*shape)], ints(*out))


@pytest.mark.parametrize("repeats", [(2, 3), (1, 2), (3, 1), (1, 1)])
def test_tile(repeats):
    check("Tile", lambda x: x.repeat(*repeats), [normal(2, 3)], ints(*repeats))


@pytest.mark.parametrize("upper", [0, 1])
def test_triangle(upper):
    function = torch.triu if upper else torch.tril
    check("Trilu", lambda x: function(x, 1), [normal(2, 4, 5)], np.array(1), upper=upper)
