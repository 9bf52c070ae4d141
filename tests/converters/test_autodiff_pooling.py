# SPDX-License-Identifier: Apache-2.0
"""Gradients of pools and of Resize against torch autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.converters.autodiff_oracle import check, ints, normal

F = torch.nn.functional
NONE = np.zeros(0)


@st.composite
def pools(draw):
    """Size, kernel, strides, pads, dilations and rounding of a pool torch accepts."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    strides = draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    pads = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilations = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    return size, kernel, strides, pads, dilations, draw(st.booleans())


def attributes(kernel, strides, pads, ceil):
    return {"kernel_shape": kernel, "strides": strides, "pads": pads * 2, "ceil_mode": int(ceil)}


def reads_something(n, k, stride, pad, dilation):
    """Whether every position reads an element: torch crashes on one that reads padding only."""
    starts = np.arange(0, n + 2 * pad, stride)[:, None] - pad
    reads = starts + np.arange(k) * dilation
    return bool(((reads >= 0) & (reads < n)).any(1)[starts[:, 0] < n].all())


@settings(max_examples=120, deadline=None)
@given(pools(), st.booleans())
def test_max_pool(pool, ties):
    size, kernel, strides, pads, dilations, ceil = pool
    assume(
        all(n + 2 * p >= (k - 1) * d + 1 for n, p, k, d in zip(size, pads, kernel, dilations, strict=True))
    )
    assume(all(map(reads_something, size, kernel, strides, pads, dilations)))
    x = normal(2, 3, *size)
    x = np.round(x) if ties else x

    def expected(x):
        return F.max_pool2d(x, kernel, strides, pads, dilations, ceil_mode=ceil)

    check("MaxPool", expected, [x], dilations=dilations, **attributes(kernel, strides, pads, ceil))


def test_max_pool_of_constant_input_takes_the_first():
    check(
        "MaxPool",
        lambda x: F.max_pool2d(x, 3, 2, 1),
        [np.zeros((1, 1, 6, 6))],
        **attributes((3, 3), (2, 2), (1, 1), 0),
    )


@settings(max_examples=120, deadline=None)
@given(pools(), st.booleans())
def test_average_pool(pool, include):
    size, kernel, strides, pads, _, ceil = pool
    assume(all(n + 2 * p >= k for n, p, k in zip(size, pads, kernel, strict=True)))

    def expected(x):
        return F.avg_pool2d(x, kernel, strides, pads, ceil, count_include_pad=include)

    given = attributes(kernel, strides, pads, ceil) | {"count_include_pad": int(include)}
    check("AveragePool", expected, [normal(2, 3, *size)], **given)


def test_one_dimensional_pools():
    x = normal(2, 3, 11)
    given = {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1)}
    check("MaxPool", lambda x: F.max_pool1d(x, 3, 2, 1), [x], **given)
    check("AveragePool", lambda x: F.avg_pool1d(x, 3, 2, 1), [x], count_include_pad=1, **given)


def test_global_average_pool():
    check("GlobalAveragePool", lambda x: x.mean((2, 3), keepdim=True), [normal(2, 3, 4, 5)])


@pytest.mark.parametrize("size", [(8, 10), (6, 5), (7, 13), (2, 3), (4, 15)])
@pytest.mark.parametrize(
    ("mode", "torch_mode", "corners"),
    [
        ("nearest", "nearest", None),
        ("linear", "bilinear", False),
        ("linear", "bilinear", True),
        ("cubic", "bicubic", False),
    ],
)
def test_resize_to_sizes(size, mode, torch_mode, corners):
    coordinates = "asymmetric" if mode == "nearest" else "align_corners" if corners else "half_pixel"

    def expected(x):
        return F.interpolate(x, size, mode=torch_mode, align_corners=corners)

    check(
        "Resize", expected, [normal(2, 3, 4, 5)], NONE, NONE, ints(2, 3, *size), mode=mode,
        coordinate_transformation_mode=coordinates, nearest_mode="floor", cubic_coeff_a=-0.75,
    )  # fmt: skip


def test_resize_by_scales():
    def expected(x):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")

    scales = np.array([1, 1, 2, 2], np.float32)
    check(
        "Resize", expected, [normal(2, 3, 4, 5)], NONE, scales, mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
