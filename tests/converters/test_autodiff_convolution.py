# SPDX-License-Identifier: Apache-2.0
"""Gradients of convolutions against torch autograd, over their whole geometry."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgefl.converters.autodiff import Expr, gradients
from edgefl.converters.builder import GraphBuilder
from edgefl.graph.model import TensorType
from tests.converters.autodiff_oracle import check, normal

F = torch.nn.functional


@dataclass(frozen=True)
class Geometry:
    """A convolution over any number of spatial axes."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    groups: int
    channels: int
    made: int
    batch: int

    @property
    def fits(self) -> bool:
        rows = zip(self.size, self.before, self.after, self.kernel, self.dilations, strict=True)
        return all(n + b + a >= (k - 1) * d + 1 for n, b, a, k, d in rows)

    @property
    def attributes(self):
        return {
            "kernel_shape": self.kernel,
            "strides": self.strides,
            "dilations": self.dilations,
            "pads": (*self.before, *self.after),
            "group": self.groups,
        }


@st.composite
def geometries(draw):
    rank = draw(st.integers(1, 2))
    few, small = st.integers(1, 3), st.integers(0, 2)

    def each(values):
        return tuple(draw(values) for _ in range(rank))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    drawn = Geometry(
        each(st.integers(1, 8)), each(few), each(few), each(few), each(small), each(small),
        groups, groups * draw(st.sampled_from([1, 2, 9])), groups * draw(few), draw(few),
    )  # fmt: skip
    assume(drawn.fits)
    return drawn


def torch_conv(g: Geometry):
    def convolve(x, w):
        pads = [p for pair in zip(g.before[::-1], g.after[::-1], strict=True) for p in pair]
        function = F.conv1d if len(g.size) == 1 else F.conv2d
        return function(F.pad(x, pads), w, stride=g.strides, dilation=g.dilations, groups=g.groups)

    return convolve


@pytest.mark.parametrize("channels_last", [False, True])
@settings(max_examples=150, deadline=None)
@given(g=geometries())
def test_conv(g, channels_last):
    x = normal(g.batch, g.channels, *g.size)
    w = normal(g.made, g.channels // g.groups, *g.kernel)
    check("Conv", torch_conv(g), [x, w], channels_last=channels_last, **g.attributes)


@pytest.mark.parametrize("channels_last", [False, True])
@settings(max_examples=100, deadline=None)
@given(g=geometries(), data=st.data())
def test_conv_transpose(g, data, channels_last):
    extra = tuple(data.draw(st.integers(0, s - 1)) for s in g.strides)
    pads = tuple(data.draw(st.integers(0, (k - 1) * d)) for k, d in zip(g.kernel, g.dilations, strict=True))
    rows = zip(g.size, g.strides, g.kernel, g.dilations, pads, extra, strict=True)
    assume(all((n - 1) * s + (k - 1) * d + 1 - 2 * p + e > 0 for n, s, k, d, p, e in rows))
    # torch wants the extra output below the stride or the dilation, ONNX Runtime likewise.
    x = normal(g.batch, g.channels, *g.size)
    w = normal(g.channels, g.made // g.groups, *g.kernel)
    function = F.conv_transpose1d if len(g.size) == 1 else F.conv_transpose2d

    def expected(x, w):
        return function(
            x, w, stride=g.strides, padding=pads, output_padding=extra, groups=g.groups, dilation=g.dilations
        )

    attributes = g.attributes | {"pads": (*pads, *pads), "output_padding": extra}
    check("ConvTranspose", expected, [x, w], channels_last=channels_last, **attributes)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise(multiplier, stride, channels_last):
    x, w = normal(2, 4, 7, 6), normal(4 * multiplier, 1, 3, 3)

    def expected(x, w):
        return F.conv2d(x, w, stride=stride, padding=1, groups=4)

    geometry = {"group": 4, "strides": (stride, stride), "pads": (1, 1, 1, 1), "kernel_shape": (3, 3)}
    check("Conv", expected, [x, w], channels_last=channels_last, **geometry)


def test_bias():
    def expected(x, w, b):
        return F.conv2d(x, w, b)

    check("Conv", expected, [normal(2, 3, 5, 5), normal(4, 3, 2, 2), normal(4)], kernel_shape=(2, 2))


def test_bias_of_transposed():
    def expected(x, w, b):
        return F.conv_transpose2d(x, w, b, stride=2)

    given = [normal(2, 3, 4, 4), normal(3, 5, 2, 2), normal(5)]
    check("ConvTranspose", expected, given, kernel_shape=(2, 2), strides=(2, 2))


@pytest.mark.parametrize("channels", [1, 16])
def test_conv_3d(channels):
    x, w = normal(2, channels, 4, 5, 3), normal(3, channels, 2, 3, 2)

    def expected(x, w):
        return F.conv3d(x, w, stride=(1, 2, 1), padding=(1, 0, 1))

    attributes = {"kernel_shape": (2, 3, 2), "strides": (1, 2, 1), "pads": (1, 0, 1, 1, 0, 1)}
    check("Conv", expected, [x, w], **attributes)


def test_pointwise_with_more_filters_than_positions():
    check("Conv", F.conv2d, [normal(3, 10, 2, 2), normal(12, 10, 1, 1)], kernel_shape=(1, 1))


@pytest.mark.parametrize("size", [5, 12])
@pytest.mark.parametrize("channels", [3, 9])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_way_to_the_weight_gradient(size, channels, stride):
    def expected(x, w):
        return F.conv2d(x, w, stride=stride, padding=1, dilation=(1, 2))

    given = [normal(2, channels, 6, size), normal(4, channels, 3, 2)]
    attributes = {"kernel_shape": (3, 2), "strides": (stride, stride), "dilations": (1, 2)}
    check("Conv", expected, given, pads=(1, 1, 1, 1), **attributes)


def test_a_convolution_that_reads_only_padding():
    def expected(x, w):
        return F.conv2d(F.pad(x, (3, 0, 0, 0)), w, stride=(1, 5))

    given = [normal(1, 1, 2, 2), normal(2, 1, 1, 1)]
    check("Conv", expected, given, kernel_shape=(1, 1), strides=(1, 5), pads=(0, 3, 0, 0))


def operators_of_gradient(groups: int, dilation: int, channels: int = 16) -> set[str]:
    b = GraphBuilder()
    x = b.input("x", TensorType.of(normal(2, channels, 9, 9)))
    w = b.input("w", TensorType.of(normal(channels, channels // groups, 3, 3)))
    y = Expr(b, b.add("Conv", x, w, group=groups, dilations=(dilation, dilation), kernel_shape=(3, 3)))
    found = gradients(b, y.sum().name, ["x", "w"])
    for name, tensor in found.items():
        b.output(f"grad/{name}", tensor)
    return set(b.build().operators())


def test_no_grouped_or_dilated_transposed_convolution_is_emitted():
    assert "ConvTranspose" in operators_of_gradient(groups=1, dilation=1)
    assert "ConvTranspose" not in operators_of_gradient(groups=1, dilation=2)
    assert "ConvTranspose" not in operators_of_gradient(groups=4, dilation=1)
    assert "ConvTranspose" not in operators_of_gradient(groups=16, dilation=1)
