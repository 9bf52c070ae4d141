# SPDX-License-Identifier: Apache-2.0
"""2-D convolutions on channel-last data, with weights that may be inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.columns import Reads, correlation, product, scattered
from edgefl.converters.targets.lowering.registry import Call, lowering
from edgefl.converters.targets.lowering.shape import padded
from edgefl.converters.targets.lowering.value import Lazy, arranged, logical, permute, reshape

CHANNEL_LAST = (0, 3, 1, 2)
_SPLIT_GROUPS = 64  # interpreters convolve groups by a plain loop unless the weights are constant


def channel_last(value: Lazy) -> Any:
    """[N, C, H, W] as data in the order [N, H, W, C]."""
    return arranged(value, CHANNEL_LAST)


def kernel_of(weight: Lazy) -> Any:
    """[M, C, H, W] as data in the order [H, W, C, M].

    All four axes are transposed at once: the converter adds a transpose of its own and merges the two.
    """
    permutation = tuple(weight.order[axis] for axis in (2, 3, 1, 0))
    if isinstance(weight.data, np.ndarray) or permutation == (0, 1, 2, 3):
        return permute(weight.data, permutation)
    return tf.transpose(weight.data, permutation)


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window over height and width.

    Attributes:
        kernel, strides, dilations: per axis.
        pads: (before, after) per axis.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    @staticmethod
    def of(call: Call, kernel: tuple[int, int], size: tuple[int, int]) -> Window:
        """The window of a node whose sliding axes have the given lengths."""
        if len(kernel) != 2:
            raise call.refuse(f"{len(kernel)} spatial axes; two are known")
        strides, dilations = call.ints("strides", (1, 1)), call.ints("dilations", (1, 1))
        mode = str(call.attribute("auto_pad", "NOTSET"))
        if mode in ("NOTSET", "VALID"):
            pads = call.ints("pads", (0, 0, 0, 0)) if mode == "NOTSET" else (0, 0, 0, 0)
            pairs = (pads[0], pads[2]), (pads[1], pads[3])
        else:
            same = [same_pads(*geometry) for geometry in zip(size, kernel, strides, dilations, strict=True)]
            lower = mode == "SAME_LOWER"
            pairs = tuple(pair[::-1] if lower else pair for pair in same)  # type: ignore[assignment]
        return Window(kernel, strides, dilations, pairs)  # type: ignore[arg-type]

    def positions(self, size: tuple[int, int]) -> tuple[int, ...]:
        """How many places the kernel takes along each axis."""
        axes = zip(size, self.kernel, self.strides, self.dilations, self.pads, strict=True)
        return tuple((int(n) + sum(pad) - (k - 1) * d - 1) // s + 1 for n, k, s, d, pad in axes)

    def is_same(self, size: tuple[int, int]) -> bool:
        """Whether the pads are those TensorFlow calls SAME."""
        geometry = zip(size, self.kernel, self.strides, self.dilations, strict=True)
        return self.pads == tuple(same_pads(*axis) for axis in geometry)


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Pads that give ceil(size / stride) positions, the odd one after."""
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def spatial(pads: tuple[tuple[int, int], tuple[int, int]]) -> list[tuple[int, int]]:
    """Pads of height and width as pads of a channel-last tensor."""
    return [(0, 0), *pads, (0, 0)]


@lowering("Conv")
def _conv(call: Call) -> Lazy:
    weight = call[1]
    window = Window.of(call, weight.shape[2:], call[0].shape[2:])  # type: ignore[arg-type]
    if _is_correlation(call, window):
        return _correlated(call[0], weight, window, call.shape)
    x = channel_last(call[0])
    result = convolve(x, weight, window, int(call.attribute("group", 1)))
    if call.given(2):
        result = tf.nn.bias_add(result, logical(call[2]))
    return Lazy(result, CHANNEL_LAST)


def convolve(x: Any, weight: Lazy, window: Window, groups: int) -> Any:
    """Convolve channel-last data with weights of logical shape [out, in / groups, H, W]."""
    size = (int(x.shape[1]), int(x.shape[2]))
    if groups == 1 and not isinstance(weight.data, np.ndarray):
        return product(x, taps_of(weight), _reads(window, size))
    same = window.is_same(size)
    x = x if same else padded(x, spatial(window.pads))
    padding = "SAME" if same else "VALID"
    if groups > 1 and weight.shape[1] == 1 and int(x.shape[3]) == groups:
        return _depthwise(x, weight, window, padding, groups)
    kernel = kernel_of(weight)
    if 1 < groups <= _SPLIT_GROUPS and not isinstance(kernel, np.ndarray):
        pairs = zip(tf.split(x, groups, 3), tf.split(kernel, groups, 3), strict=True)
        parts = [tf.nn.conv2d(a, k, window.strides, padding, dilations=window.dilations) for a, k in pairs]
        return tf.concat(parts, 3)
    return tf.nn.conv2d(x, kernel, window.strides, padding, dilations=window.dilations)


def taps_of(weight: Lazy) -> Any:
    """[M, C, H, W] as data of shape [H W, C, M]."""
    made, channels = weight.shape[:2]
    return reshape(arranged(weight, (3, 2, 0, 1)), (-1, channels, made))


def _reads(window: Window, size: Any) -> Reads:
    before = [pair[0] for pair in window.pads]
    return Reads.of(window.kernel, window.strides, window.dilations, before, window.positions(size))


def _is_correlation(call: Call, window: Window) -> bool:
    """Whether a kernel like an image slides over few places, as in the gradient of a convolution's weight."""
    ungrouped = int(call.attribute("group", 1)) == 1 and not call.given(2)
    data = isinstance(call[0].data, np.ndarray) or isinstance(call[1].data, np.ndarray)
    return ungrouped and not data and math.prod(window.kernel) > math.prod(call.shape[2:])


def _correlated(x: Lazy, y: Lazy, window: Window, shape: tuple[int, ...]) -> Lazy:
    """The sum over the kernel's places and the channels, which for the gradient of a weight are the examples.

    Channels of both take their places at the end of memory, as in the convolution itself.
    """
    last = (3, 0, 1, 2)
    before = [pair[0] for pair in window.pads]
    reads = Reads.of(shape[2:], window.dilations, window.strides, before, window.kernel)
    made = correlation(arranged(x, last), arranged(y, last), reads)
    channels, kernels, height, width = shape
    return Lazy(reshape(made, (kernels, height, width, channels)), last)


def _depthwise(x: Any, weight: Lazy, window: Window, padding: str, groups: int) -> Any:
    """One input channel per group: [C * M, 1, H, W] read as [H, W, C, M].

    Interpreters know one stride for both axes here; unequal strides pick rows and columns of a dense pass.
    """
    height, width = window.kernel
    kernel = reshape(kernel_of(weight), (height, width, groups, -1))
    down, across = window.strides
    if down == across:
        return tf.nn.depthwise_conv2d(x, kernel, (1, down, across, 1), padding, dilations=window.dilations)
    if padding == "SAME":
        x = padded(x, spatial(window.pads))
    return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "VALID", dilations=window.dilations)[
        :, ::down, ::across
    ]


@lowering("ConvTranspose")
def _conv_transpose(call: Call) -> Lazy:
    x, weight = channel_last(call[0]), call[1]
    window = Window.of(call, weight.shape[2:], call[0].shape[2:])  # type: ignore[arg-type]
    groups, size = int(call.attribute("group", 1)), (call.shape[2], call.shape[3])
    if groups == 1 and window.dilations == (1, 1):
        result = _transposed(x, weight, window, call.shape)
    else:
        result = _stuffed(x, weight, window, groups, size)
    if call.given(2):
        result = tf.nn.bias_add(result, logical(call[2]))
    return Lazy(result, CHANNEL_LAST)


def _transposed(x: Any, weight: Lazy, window: Window, shape: tuple[int, ...]) -> Any:
    """With trained weights products; else TRANSPOSE_CONV, with the pads of a SAME convolution or cropped."""
    batch, channels, *size = shape
    if not isinstance(weight.data, np.ndarray):
        before = [pair[0] for pair in window.pads]
        return scattered(
            x, taps_of(weight.transposed((1, 0, 2, 3))), window.strides, before, size, window.kernel
        )
    kernel = kernel_of(weight)
    inner = (int(x.shape[1]), int(x.shape[2]))
    covers = all(-(-n // s) == m for n, s, m in zip(size, window.strides, inner, strict=True))
    if covers and window.is_same((size[0], size[1])):
        target = (batch, *size, channels)
        return tf.nn.conv2d_transpose(x, kernel, target, window.strides, "SAME")
    full = [(m - 1) * s + k for m, s, k in zip(inner, window.strides, window.kernel, strict=True)]
    whole = tf.nn.conv2d_transpose(x, kernel, (batch, *full, channels), window.strides, "VALID")
    return _fit(whole, [before for before, _ in window.pads], size)


def _fit(whole: Any, offset: list[int], size: list[int]) -> Any:
    """Rows and columns from an offset on, with zeros where the result reaches past the end."""
    have = [int(n) for n in whole.shape[1:3]]
    missing = [max(o + n - h, 0) for o, n, h in zip(offset, size, have, strict=True)]
    whole = padded(whole, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)])
    (top, left), (height, width) = offset, size
    return whole[:, top : top + height, left : left + width]


def _stuffed(x: Any, weight: Lazy, window: Window, groups: int, size: tuple[int, int]) -> Any:
    """Groups or dilation: an ordinary convolution of the input with zeros between its elements."""
    x = _with_zeros(x, window.strides)
    reach = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    before = [r - a for r, (a, _) in zip(reach, window.pads, strict=True)]
    after = [n + r - b - int(m) for n, r, b, m in zip(size, reach, before, x.shape[1:3], strict=True)]
    x = padded(
        _cropped(x, before, after),
        [(0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)), (0, 0)],
    )
    flipped = _swap_channels(_flip(weight), groups)
    return convolve(x, flipped, Window(window.kernel, (1, 1), window.dilations, ((0, 0), (0, 0))), groups)


def _cropped(x: Any, before: list[int], after: list[int]) -> Any:
    cuts = [
        slice(max(-b, 0), int(n) + min(a, 0)) for b, a, n in zip(before, after, x.shape[1:3], strict=True)
    ]
    whole = all((cut.start, cut.stop) == (0, int(n)) for cut, n in zip(cuts, x.shape[1:3], strict=True))
    return x if whole else x[:, cuts[0], cuts[1]]


def _with_zeros(x: Any, strides: tuple[int, int]) -> Any:
    """[N, H, W, C] with stride - 1 zeros after each row and column, on four axes at a time."""
    batch, height, width, channels = (int(n) for n in x.shape)
    down, across = strides
    if across > 1:
        x = padded(
            reshape(x, (batch * height, width, 1, channels)), [(0, 0), (0, 0), (0, across - 1), (0, 0)]
        )
    if down > 1:
        x = padded(reshape(x, (batch, height, 1, -1)), spatial(((0, 0), (0, down - 1))))
    return reshape(x, (batch, height * down, width * across, channels))


def _flip(weight: Lazy) -> Lazy:
    """The weight turned by 180 degrees."""
    places = [weight.axis(2), weight.axis(3)]
    if isinstance(weight.data, np.ndarray):
        return Lazy(np.flip(weight.data, places), weight.order)
    data = weight.data
    for place in places:
        data = tf.reverse(data, [place])
    return Lazy(data, weight.order)


def _swap_channels(weight: Lazy, groups: int) -> Lazy:
    """[in, out / groups, H, W] to [out, in / groups, H, W]."""
    if groups == 1:
        return weight.transposed((1, 0, 2, 3))
    data = logical(weight)
    inner, outer, height, width = (int(n) for n in data.shape)
    if inner == groups:
        return Lazy.plain(reshape(data, (groups * outer, 1, height, width)))
    split = permute(reshape(data, (groups, inner // groups, outer, height * width)), (0, 2, 1, 3))
    return Lazy.plain(reshape(split, (groups * outer, inner // groups, height, width)))
