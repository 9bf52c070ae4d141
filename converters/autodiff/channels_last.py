# SPDX-License-Identifier: Apache-2.0
"""Weight gradients of convolutions for engines that keep channels last, such as OpenVINO and TFLite.

There a transpose to channels last is free, and whatever reads an image in another order costs a copy. Rows
of a matrix `[positions, channels]` have only one order, so images become such matrices at once: a kernel
position is then a run of rows, since zeros between image rows let a shift be the same for the whole matrix.
"""

from __future__ import annotations

from edgefl.converters.autodiff.expression import Expr, concat
from edgefl.converters.autodiff.windows import Window

_FEW = 8  # channels: with more, cutting out single pixels costs less than products that are not wanted


def dense(x: Expr, dy: Expr, window: Window) -> Expr:
    """One product `[C, P] @ [P, M]` per kernel position.

    Args:
        x: `[N, C, *size]`.
        dy: `[N, M, *out]`.

    Returns:
        `[M, C, *kernel]`.
    """
    channels, made = x.shape[1], dy.shape[1]
    if channels < _FEW and x.rank == 4 and window.strides[1] > 1 and set(window.dilations) == {1}:
        return _by_line(x, dy, window)
    if x.shape[0] > 1 and set(window.strides) == {1}:
        taps, rows = _shifted(x, dy, window)
    else:
        taps = [_matrix(tap) for tap in window.taps(x).values()]
        rows = [_matrix(dy)] * len(taps)
    if len(taps) == 1:
        return (rows[0].swap_last() @ taps[0]).reshape((made, channels, *window.kernel))
    products = [
        (tap.swap_last() @ row).reshape((1, channels, made)) for row, tap in zip(rows, taps, strict=True)
    ]
    return concat(products, axis=0).transpose(2, 1, 0).reshape((made, channels, *window.kernel))


def depthwise(x: Expr, dy: Expr, window: Window) -> Expr:
    """A convolution whose kernels are the images of the output's gradient, one per example and channel.

    Args:
        x: `[N, C, *size]`.
        dy: `[N, C, *out]`.

    Returns:
        `[C, 1, *kernel]`.
    """
    batch, channels = dy.shape[:2]
    behind = [max(r - b - n, 0) for r, b, n in zip(window.reach, window.before, window.size, strict=True)]
    spatial = range(2, x.rank)
    image = x.transpose(*spatial, 0, 1).reshape((1, *window.size, batch * channels))
    made = image.transpose(0, x.rank - 1, *range(1, x.rank - 1)).apply(
        "Conv",
        dy.reshape((batch * channels, 1, *window.out)),
        kernel_shape=window.out,
        strides=window.dilations,
        dilations=window.strides,
        pads=(*window.before, *behind),
        group=batch * channels,
    )
    taps = made.slices(spatial, [0] * len(spatial), window.kernel, [1] * len(spatial))
    sums = taps.transpose(0, *spatial, 1).reshape((-1, batch, channels)).sum([1])
    return sums.transpose(1, 0).reshape((channels, 1, *window.kernel))


def _by_line(x: Expr, dy: Expr, window: Window) -> Expr:
    """As `dense`, one product for as many neighbours in a line of the kernel as a stride passes over."""
    (stride, jump), (height, width), (high, wide) = window.strides, window.kernel, window.out
    runs = -(-width // jump)
    shape = [-(-height // stride) + high - 1, runs + wide - 1]
    whole = [n * s for n, s in zip(shape, window.strides, strict=True)]
    read = [total - before for total, before in zip(whole, window.before, strict=True)]
    x = x.slices([2, 3], [0, 0], read, [1, 1])
    behind = [n - size for n, size in zip(read, x.shape[2:], strict=True)]
    x = x.pad([(0, 0), (0, 0), *zip(window.before, behind, strict=True)])
    batch, channels, made = x.shape[0], x.shape[1], dy.shape[1]
    parted = x.transpose(0, 2, 3, 1).reshape((batch, shape[0], stride, shape[1], jump * channels))
    products = []
    for i in range(height):
        line = parted.slices([1, 2], [i // stride, i % stride], [i // stride + high, i % stride + 1], [1, 1])
        pieces = [line.slice(3, j, j + wide).reshape((-1, jump * channels)) for j in range(runs)]
        products += [piece.swap_last() @ _matrix(dy) for piece in pieces]
    joined = concat(products, axis=0).reshape((height, runs * jump, channels, made))
    return joined.slice(1, 0, width).transpose(3, 2, 0, 1)


def _shifted(x: Expr, dy: Expr, window: Window) -> tuple[list[Expr], list[Expr]]:
    """For each kernel position the rows it reads, and the gradient's rows they belong to."""
    grid = _grid(window)
    image, gradient = _matrix(_on(x, grid)), _matrix(_on(dy, grid))
    offsets = [_offset(position, window, grid) for position in window.positions]
    length = image.shape[0]
    starts = [max(offset, 0) for offset in offsets]
    stops = [length + min(offset, 0) for offset in offsets]
    taps = [image.slice(0, start, stop) for start, stop in zip(starts, stops, strict=True)]
    pairs = zip(starts, stops, offsets, strict=True)
    return taps, [gradient.slice(0, start - offset, stop - offset) for start, stop, offset in pairs]


def _grid(window: Window) -> list[int]:
    """A spatial shape with enough zeros behind each axis to be the padding of both its sides."""
    rows = zip(window.size, window.out, window.before, window.reach, strict=True)
    return [max(size + max(before, reach - before - size), out) for size, out, before, reach in rows]


def _on(x: Expr, grid: list[int]) -> Expr:
    behind = [(0, total - size) for total, size in zip(grid, x.shape[2:], strict=True)]
    return x.pad([(0, 0), (0, 0), *behind])


def _offset(position: tuple[int, ...], window: Window, grid: list[int]) -> int:
    """How many rows of the matrix lie between an output's place and what it reads at a kernel position."""
    total = 0
    for i, dilation, before, size in zip(position, window.dilations, window.before, grid, strict=True):
        total = total * size + i * dilation - before
    return total


def _matrix(x: Expr) -> Expr:
    """`[N, C, *size]` as `[N * positions, C]`."""
    return x.transpose(0, *range(2, x.rank), 1).reshape((-1, x.shape[1]))
