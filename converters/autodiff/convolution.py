# SPDX-License-Identifier: Apache-2.0
"""Gradients of convolutions, for any number of spatial axes, groups, strides, dilations and paddings.

The weight gradient is a matrix product per kernel position, one over all of them (im2col) where there are
few channels, or for depthwise convolutions an element-wise product and sum per position: inference engines
have fast kernels for these, and none for the "convolution" whose kernel would be as large as the image.
"""

from __future__ import annotations

import numpy as np

from edgefl.converters.autodiff import channels_last
from edgefl.converters.autodiff.expression import Expr, concat, zeros_like
from edgefl.converters.autodiff.registry import Gradient, Op, vjp
from edgefl.converters.autodiff.windows import Window, spread

# Measured with onnxruntime 1.31 on x86-64, one thread.
_FEW_CHANNELS = 8  # below it products per kernel position are too thin for a matrix kernel
_SHORT_ROW = 8  # up to it cutting rows out of an image costs more than turning the image around


@vjp("Conv")
def conv(op: Op, dy: Expr) -> tuple[Gradient, ...]:
    x, w = op.input(0), op.input(1)
    window = Window.of(op, x.shape[2:], dy.shape[2:], w.shape[2:])
    groups = op.integer("group", 1)
    return (
        lambda: input_gradient(dy, w, window, groups),
        lambda: weight_gradient(x, dy, window, groups),
        *_bias(op, dy),
    )


@vjp("ConvTranspose")
def conv_transpose(op: Op, dy: Expr) -> tuple[Gradient, ...]:
    """A transposed convolution is the input gradient of a convolution that reads what this one writes."""
    x, w = op.input(0), op.input(1)
    window = Window.of(op, dy.shape[2:], x.shape[2:], w.shape[2:])
    groups = op.integer("group", 1)
    return (
        lambda: _convolve(dy, w, window, groups),
        lambda: weight_gradient(dy, x, window, groups),
        *_bias(op, dy),
    )


def _bias(op: Op, dy: Expr) -> list[Gradient]:
    return [lambda: dy.sum([0, *range(2, dy.rank)])] if op.has(2) else []


def _convolve(x: Expr, w: Expr, window: Window, groups: int) -> Expr:
    """The convolution a window describes."""
    # Only what the positions reach is read, which cuts padding behind that the output does not need.
    rows = zip(window.reach, window.before, window.size, strict=True)
    pads = (*window.before, *(reach - before - size for reach, before, size in rows))
    for axis, excess in enumerate(pads[len(window.size) :]):
        if excess < 0:
            x = x.slice(axis + 2, 0, x.shape[axis + 2] + excess)
    return x.apply(
        "Conv", w, kernel_shape=window.kernel, strides=window.strides, dilations=window.dilations,
        pads=tuple(max(p, 0) for p in pads), group=groups,
    )  # fmt: skip


def input_gradient(dy: Expr, w: Expr, window: Window, groups: int) -> Expr:
    """Gradient of a convolution's input.

    Args:
        dy: `[N, M, *out]`.
        w: `[M, C / groups, *kernel]`.

    Returns:
        `[N, C, *size]`.
    """
    if not _reads_input(window):
        return zeros_like(dy, (dy.shape[0], groups * w.shape[1], *window.size))
    if _crops(window) and _is_transposed(dy.builder.channels_last, window, groups):
        return _transposed(dy, w, window, groups)
    return _flipped(dy, w, window, groups)


def _reads_input(window: Window) -> bool:
    """Whether the last position gets past the padding in front, on every axis."""
    return all(reach > before for reach, before in zip(window.reach, window.before, strict=True))


def _crops(window: Window) -> bool:
    """Whether a transposed convolution gives the whole input: its padding only crops."""
    rows = zip(window.size, window.before, window.reach, window.strides, strict=True)
    return all(size + before - reach < stride for size, before, reach, stride in rows)


def _is_transposed(last: bool, window: Window, groups: int) -> bool:
    """Whether a transposed convolution is there, and fast; TFLite has no grouped and no dilated one."""
    if last:
        return groups == 1 or max(window.strides) > 1
    return groups == 1 and set(window.dilations) == {1}


def _transposed(dy: Expr, w: Expr, window: Window, groups: int) -> Expr:
    rows = list(zip(window.reach, window.before, window.size, strict=True))
    behind = [reach - before - size for reach, before, size in rows]
    return dy.apply(
        "ConvTranspose", w, kernel_shape=window.kernel, strides=window.strides, dilations=window.dilations,
        pads=(*window.before, *(max(b, 0) for b in behind)), group=groups,
        output_padding=tuple(max(-b, 0) for b in behind),
    )  # fmt: skip


def _flipped(dy: Expr, w: Expr, window: Window, groups: int) -> Expr:
    """A convolution of the output gradient, spread by the strides, with the flipped kernel."""
    for axis, stride in enumerate(window.strides):
        length = (window.out[axis] - 1) * stride + 1
        dy = spread([(0, dy)], axis + 2, stride, length)
    span = [(k - 1) * d for k, d in zip(window.kernel, window.dilations, strict=True)]
    margins = [_margin(window, axis, span[axis]) for axis in range(len(span))]
    for axis, (before, after) in enumerate(margins):
        dy = dy.slice(axis + 2, max(-before, 0), dy.shape[axis + 2] + min(after, 0))
    pads = [max(before, 0) for before, _ in margins] + [max(after, 0) for _, after in margins]
    return dy.apply(
        "Conv", _flip(w, groups), kernel_shape=window.kernel, strides=(1,) * len(span), group=groups,
        dilations=window.dilations, pads=tuple(pads),
    )  # fmt: skip


def _margin(window: Window, axis: int, span: int) -> tuple[int, int]:
    """Padding of the spread output gradient before and after, negative where it is cut."""
    before = span - window.before[axis]
    length = (window.out[axis] - 1) * window.strides[axis] + 1
    return before, window.size[axis] + span - before - length


def _flip(w: Expr, groups: int) -> Expr:
    """`[M, C / g, *kernel]` to `[C, M / g, *kernel]`, each kernel axis reversed."""
    m, c, *kernel = w.shape
    for axis in range(2, w.rank):
        w = w.reverse(axis)
    if groups == 1:
        return w.transpose(1, 0, *range(2, w.rank))
    if c == 1 and m == groups:
        return w
    grouped = w.reshape((groups, m // groups, c, int(np.prod(kernel))))
    return grouped.transpose(0, 2, 1, 3).reshape((groups * c, m // groups, *kernel))


def weight_gradient(x: Expr, dy: Expr, window: Window, groups: int) -> Expr:
    """Gradient of a convolution's weight.

    Args:
        x: `[N, C, *size]`, what the convolution reads.
        dy: `[N, M, *out]`.

    Returns:
        `[M, C / groups, *kernel]`.
    """
    channels, made = x.shape[1], dy.shape[1]
    last = x.builder.channels_last
    if groups == channels == made:
        return (channels_last.depthwise if last else _depthwise)(x, dy, window)
    if groups == 1 and x.builder.correlations:
        return _correlation(x, dy, window)
    if groups == 1:
        return (channels_last.dense if last else _dense)(x, dy, window)
    return _grouped(x, dy, window, groups)


def _depthwise(x: Expr, dy: Expr, window: Window) -> Expr:
    channels, axes = dy.shape[1], [0, *range(2, dy.rank)]
    sums = [(tap * dy).sum(axes).reshape((channels, 1)) for tap in window.taps(x).values()]
    return concat(sums, axis=1).reshape((channels, 1, *window.kernel))


def _dense(x: Expr, dy: Expr, window: Window) -> Expr:
    if len(window.positions) == 1 and dy.shape[1] <= np.prod(window.out):
        return _pointwise(x, dy, window)
    if x.shape[1] < _FEW_CHANNELS:
        return _unfolded(_channels_first(x), dy, window)
    if window.out[-1] <= _SHORT_ROW or window.strides[-1] > 1:
        return _by_position_last(x, dy, window)
    return _by_position(_channels_first(x), dy, window)


def _correlation(x: Expr, dy: Expr, window: Window) -> Expr:
    """The image convolved with the output's gradient, examples and channels in each other's place."""
    rows = zip(window.reach, window.before, window.size, strict=True)
    behind = [reach - before - size for reach, before, size in rows]
    for axis, excess in enumerate(behind):
        if excess < 0:
            x = x.slice(axis + 2, 0, x.shape[axis + 2] + excess)
    made = _channels_first(x).apply(
        "Conv", _channels_first(dy), kernel_shape=window.out, strides=window.dilations,
        dilations=window.strides, pads=(*window.before, *(max(n, 0) for n in behind)), group=1,
    )  # fmt: skip
    return _channels_first(made)


def _pointwise(x: Expr, dy: Expr, window: Window) -> Expr:
    """A 1x1 kernel: a product per example, then the sum over examples."""
    batch, channels, made = x.shape[0], x.shape[1], dy.shape[1]
    (tap,) = window.taps(x).values()
    products = dy.reshape((batch, made, -1)) @ tap.reshape((batch, channels, -1)).swap_last()
    return products.sum([0]).reshape((made, channels, *window.kernel))


def _unfolded(turned: Expr, dy: Expr, window: Window) -> Expr:
    """One product over all kernel positions at once (im2col), `[M, N P] @ [N P, K C]`."""
    channels, made, positions = turned.shape[0], dy.shape[1], len(window.positions)
    columns = concat(list(window.taps(turned).values()), axis=0).reshape((positions * channels, -1))
    product = _channels_first(dy).reshape((made, -1)) @ columns.swap_last()
    by_position = product.reshape((made, positions, channels)).transpose(0, 2, 1)
    return by_position.reshape((made, channels, *window.kernel))


def _by_position(turned: Expr, dy: Expr, window: Window) -> Expr:
    """One product `[M, N P] @ [N P, C]` per kernel position: nothing larger than the input is ever stored."""
    channels, made = turned.shape[0], dy.shape[1]
    rows = _channels_first(dy).reshape((made, -1))
    products = [rows @ tap.reshape((channels, -1)).swap_last() for tap in window.taps(turned).values()]
    joined = concat([p.reshape((made, channels, 1)) for p in products], axis=2)
    return joined.reshape((made, channels, *window.kernel))


def _by_position_last(x: Expr, dy: Expr, window: Window) -> Expr:
    """As `_by_position`, with examples and channels behind the spatial axes: windows are cut in long runs."""
    batch, channels, made = x.shape[0], x.shape[1], dy.shape[1]
    turned = x.reshape((batch * channels, -1)).transpose(1, 0).reshape((*window.size, batch * channels))
    rows = dy.reshape((batch * made, -1)).transpose(1, 0).reshape((-1, made)).swap_last()
    products = [rows @ tap.reshape((-1, channels)) for tap in window.taps(turned, first=0).values()]
    joined = concat([p.reshape((made, channels, 1)) for p in products], axis=2)
    return joined.reshape((made, channels, *window.kernel))


def _grouped(x: Expr, dy: Expr, window: Window, groups: int) -> Expr:
    """As `_unfolded`, with the groups as a batch of products `[M / g, N P] @ [N P, K C / g]`."""
    channels, made, positions = x.shape[1] // groups, dy.shape[1] // groups, len(window.positions)
    taps = [tap.reshape((groups, channels, -1)) for tap in window.taps(_channels_first(x)).values()]
    rows = _channels_first(dy).reshape((groups, made, -1))
    product = rows @ concat(taps, axis=1).swap_last()
    by_position = product.reshape((groups * made, positions, channels)).transpose(0, 2, 1)
    return by_position.reshape((groups * made, channels, *window.kernel))


def _channels_first(x: Expr) -> Expr:
    """`[N, C, ...]` to `[C, N, ...]`, so that one product can sum over examples and positions."""
    return x.transpose(1, 0, *range(2, x.rank))
