# SPDX-License-Identifier: Apache-2.0
"""Convolutions and pools: always 2-D, with every attribute spelled out, the bias an Add of its own.

A 1-D window runs along W of an image one row high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.arithmetic import raised, reduce, spread
from edgefl.converters.normalize.layout import pad, reshape
from edgefl.converters.normalize.registry import (
    given,
    integer,
    integers,
    like,
    number,
    rewrite,
    static_ints,
    text,
)
from edgefl.errors import UnsupportedOperator
from edgefl.graph.model import Node


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image: one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def pads(self) -> tuple[int, ...]:
        return (*self.before, *self.after)

    @property
    def spans(self) -> tuple[int, ...]:
        """Input elements a kernel covers, holes included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def image(self) -> Window:
        """The same window in 2-D."""
        if len(self.kernel) == 2:
            return self
        return Window(
            (1, *self.kernel), (1, *self.strides), (1, *self.dilations), (0, *self.before), (0, *self.after)
        )


def window(node: Node, spatial: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a convolution or pool node over a spatial shape, automatic padding worked out.

    Raises:
        UnsupportedOperator: the node is not over one or two spatial axes.
    """
    rank = len(spatial)
    if rank not in (1, 2):
        raise UnsupportedOperator(
            f"node {node}: {rank} spatial axes; 1-D and 2-D are supported: "
            "write one over volumes as a sum of 2-D ones over the depth"
        )
    pads = integers(node, "pads", (0,) * 2 * rank)
    strides, dilations = integers(node, "strides", (1,) * rank), integers(node, "dilations", (1,) * rank)
    w = Window(tuple(kernel), strides, dilations, pads[:rank], pads[rank:])
    mode = text(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        needed = [
            max(0, (-(-n // s) - 1) * s + span - n)
            for n, s, span in zip(spatial, strides, w.spans, strict=True)
        ]
        return _shared_out(w, needed, mode)
    return replace(w, before=(0,) * rank, after=(0,) * rank) if mode == "VALID" else w


def _shared_out(w: Window, total: Sequence[int], mode: str) -> Window:
    """Total padding split in halves, the odd one after (SAME_UPPER) or before (SAME_LOWER)."""
    small, large = tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)
    return (
        replace(w, before=large, after=small)
        if mode == "SAME_LOWER"
        else replace(w, before=small, after=large)
    )


def as_image(b: GraphBuilder, x: str) -> str:
    """`[N, C, L]` as `[N, C, 1, L]`; an image stays."""
    shape = b.shape(x)
    return x if len(shape) == 4 else reshape(b, x, (*shape[:2], 1, *shape[2:]))


def as_given(b: GraphBuilder, y: str, x: str) -> str:
    """Undo `as_image` on a result when `x` was 1-D."""
    shape = b.shape(y)
    return y if len(b.shape(x)) == 4 else reshape(b, y, (*shape[:2], shape[3]))


def _with_bias(b: GraphBuilder, y: str, bias: str) -> str:
    return b.add("Add", y, spread(b, bias, b.shape(y))) if bias else y


@rewrite("Conv")
def conv(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x, weight = inputs[0], inputs[1]
    w = window(node, b.shape(x)[2:], b.shape(weight)[2:]).image()
    y = b.add(
        "Conv",
        as_image(b, x),
        as_image(b, weight),
        dilations=w.dilations,
        group=integer(node, "group", 1),
        kernel_shape=w.kernel,
        pads=w.pads,
        strides=w.strides,
    )
    return as_given(b, _with_bias(b, y, given(inputs, 2)), x)


@rewrite("ConvTranspose")
def conv_transpose(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    x, weight = inputs[0], inputs[1]
    spatial = b.shape(x)[2:]
    w, extra = _transposed_window(node, spatial, b.shape(weight)[2:])
    w = w.image()
    y = b.add(
        "ConvTranspose",
        as_image(b, x),
        as_image(b, weight),
        dilations=w.dilations,
        group=integer(node, "group", 1),
        kernel_shape=w.kernel,
        output_padding=extra if len(extra) == 2 else (0, *extra),
        pads=w.pads,
        strides=w.strides,
    )
    return as_given(b, _with_bias(b, y, given(inputs, 2)), x)


def _transposed_window(
    node: Node, spatial: Sequence[int], kernel: Sequence[int]
) -> tuple[Window, tuple[int, ...]]:
    """Window and output padding; `output_shape` and automatic padding decide the pads as specified."""
    explicit = {k: v for k, v in node.attributes.items() if k != "auto_pad"}
    plain = Node(node.op, node.inputs, node.outputs, explicit, node.name)
    w = window(plain, spatial, kernel)
    extra = integers(node, "output_padding", (0,) * len(spatial))
    mode, wanted = text(node, "auto_pad", "NOTSET"), integers(node, "output_shape")
    if mode.startswith("SAME") and not wanted:
        wanted = tuple(n * s for n, s in zip(spatial, w.strides, strict=True))
    if wanted:
        full = [
            (n - 1) * s + e + span for n, s, e, span in zip(spatial, w.strides, extra, w.spans, strict=True)
        ]
        total = [f - n for f, n in zip(full, wanted[-len(spatial) :], strict=True)]
        extra = tuple(e + max(0, -t) for e, t in zip(extra, total, strict=True))
        w = _shared_out(w, [max(0, t) for t in total], "SAME_UPPER" if mode == "SAME_UPPER" else "SAME_LOWER")
    return w, extra


@rewrite("Col2Im")
def col2im(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Columns laid back as overlapping patches: a transposed convolution with a kernel of ones and zeros."""
    image, kernel = (static_ints(b, node, inputs, i) or () for i in (1, 2))
    w = window(node, image, kernel)
    steps = tuple(
        (n + p + q - span) // s + 1
        for n, p, q, span, s in zip(image, w.before, w.after, w.spans, w.strides, strict=True)
    )
    missed = tuple(
        n + p + q - span - (count - 1) * s
        for n, p, q, span, s, count in zip(image, w.before, w.after, w.spans, w.strides, steps, strict=True)
    )
    batch, rows, _ = b.shape(inputs[0])
    taps = int(np.prod(kernel))
    ones = np.tile(np.eye(taps).reshape(taps, 1, *kernel), (rows // taps, 1, 1, 1))
    attributes = {**node.attributes, "group": rows // taps, "output_padding": missed, "kernel_shape": kernel}
    columns = reshape(b, inputs[0], (batch, rows, *steps))
    plain = Node("ConvTranspose", node.inputs, node.outputs, attributes, node.name)
    return conv_transpose(b, plain, (columns, b.constant(ones.astype(b.type(inputs[0]).dtype))))


def _rounded_up(w: Window, spatial: Sequence[int]) -> Window:
    """With `ceil_mode`: padding after the image so that the last window, begun inside it, is complete."""
    after = []
    for n, before, end, span, s in zip(spatial, w.before, w.after, w.spans, w.strides, strict=True):
        count = -(-(n + before + end - span) // s) + 1
        count -= (count - 1) * s >= n + before
        after.append(max(end, (count - 1) * s + span - n - before))
    return replace(w, after=tuple(after))


@rewrite("MaxPool")
def max_pool(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    if len([t for t in node.outputs if t]) > 1:
        raise UnsupportedOperator(f"node {node}: the indices of a MaxPool are not supported, only its values")
    x = inputs[0]
    w = window(node, b.shape(x)[2:], integers(node, "kernel_shape"))
    w = (_rounded_up(w, b.shape(x)[2:]) if integer(node, "ceil_mode", 0) else w).image()
    image = as_image(b, x)
    y = b.add("MaxPool", image, dilations=w.dilations, kernel_shape=w.kernel, pads=w.pads, strides=w.strides)
    return as_given(b, y, x)


@rewrite("AveragePool")
def average_pool(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Where `ceil_mode` reaches beyond padding that counts, the latter is added first: the rest does not."""
    x = inputs[0]
    image, spatial = as_image(b, x), b.shape(x)[2:]
    given_window = window(node, spatial, integers(node, "kernel_shape"))
    w = (_rounded_up(given_window, spatial) if integer(node, "ceil_mode", 0) else given_window).image()
    if any(d != 1 for d in w.dilations):
        raise UnsupportedOperator(f"node {node}: an average pool with dilations {w.dilations}")
    counts, counted = bool(integer(node, "count_include_pad", 0)), given_window.image()
    if counts and w != counted:
        image = pad(b, image, (0, 0, *counted.before), (0, 0, *counted.after))
        overhang = tuple(n - m for n, m in zip(w.after, counted.after, strict=True))
        w, counts = replace(w, before=(0, 0), after=overhang), False
    return as_given(b, _average(b, image, w, counts and any(w.pads)), x)


def _average(b: GraphBuilder, image: str, w: Window, counts: bool) -> str:
    padded = tuple(sum(t) for t in zip(b.shape(image)[2:], w.before, w.after, strict=True))
    if w.kernel == padded and min(w.pads) >= 0 and not counts:  # one position, which sees the whole image
        return reduce(b, "ReduceMean", image, (2, 3), True)
    return b.add(
        "AveragePool",
        image,
        count_include_pad=int(counts),
        kernel_shape=w.kernel,
        pads=w.pads,
        strides=w.strides,
    )


@rewrite("GlobalAveragePool")
def global_average_pool(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return reduce(b, "ReduceMean", inputs[0], range(2, len(b.shape(inputs[0]))), True)


@rewrite("GlobalMaxPool")
def global_max_pool(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return reduce(b, "ReduceMax", inputs[0], range(2, len(b.shape(inputs[0]))), True)


@rewrite("LRN")
def local_response(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Sums over neighbouring channels are a product with a band matrix."""
    x = inputs[0]
    n, c, *rest = b.shape(x)
    size = integer(node, "size", 1)
    offsets = np.arange(c)[None, :] - np.arange(c)[:, None]
    band = ((offsets >= -((size - 1) // 2)) & (offsets <= size // 2)).astype(b.type(x).dtype)
    flat = reshape(b, b.add("Mul", x, x), (n, c, int(np.prod(rest, dtype=np.int64))))
    total = reshape(b, b.add("MatMul", b.constant(band), flat), (n, c, *rest))
    scale = b.add("Mul", total, like(b, x, number(node, "alpha", 1e-4) / size))
    base = b.add("Add", scale, like(b, x, number(node, "bias", 1.0)))
    return b.add("Div", x, raised(b, base, number(node, "beta", 0.75)))
