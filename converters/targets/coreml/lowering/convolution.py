# SPDX-License-Identifier: Apache-2.0
"""2-D convolutions with weights that may be inputs.

Core ML takes such a weight where the dilations are one; its bias and the weight of a transposed convolution
it wants constant. So a dilated weight is written with its zeros, a bias is added afterwards, and a
transposed convolution is an ordinary one over the input with zeros between its elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.lowering.registry import Call, lowering
from edgefl.converters.targets.coreml.lowering.shape import cut, padded
from edgefl.converters.targets.coreml.lowering.value import Value, ints, reshape, transposed

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window over height and width.

    Attributes:
        kernel, strides, dilations: per axis.
        pads: (before, after) per axis.
    """

    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: tuple[Pair, Pair]

    @staticmethod
    def of(call: Call, kernel: tuple[int, ...], size: tuple[int, ...]) -> Window:
        """The window of a node whose sliding axes have the given lengths."""
        if len(kernel) != 2:
            raise call.refuse(f"{len(kernel)} spatial axes; two are known")
        strides, dilations = call.ints("strides", (1, 1)), call.ints("dilations", (1, 1))
        mode = str(call.attribute("auto_pad", "NOTSET"))
        if mode in ("NOTSET", "VALID"):
            pads = call.ints("pads", (0, 0, 0, 0)) if mode == "NOTSET" else (0, 0, 0, 0)
            pairs = (pads[0], pads[2]), (pads[1], pads[3])
        else:
            same = [_same_pads(*geometry) for geometry in zip(size, kernel, strides, dilations, strict=True)]
            first, second = (pair[::-1] if mode == "SAME_LOWER" else pair for pair in same)
            pairs = (first[0], first[1]), (second[0], second[1])
        return Window((kernel[0], kernel[1]), _pair(strides), _pair(dilations), pairs)


def _pair(values: tuple[int, ...]) -> Pair:
    first, second = values
    return first, second


def _same_pads(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """Pads that give ceil(size / stride) positions, the odd one after."""
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


@lowering("Conv")
def _conv(call: Call) -> Value:
    window = Window.of(call, call[1].shape[2:], call[0].shape[2:])
    bias = call[2] if call.given(2) else None
    fixed = bias.data.reshape(-1) if bias is not None and bias.is_constant else None
    made = convolve(call[0], call[1], window, int(call.attribute("group", 1)), fixed)
    if bias is not None and fixed is None:
        made = mb.add(x=made, y=bias.at(1, call.shape[1], 1, 1))
    return call[0].become(made, call.shape)


def convolve(x: Value, weight: Value, window: Window, groups: int, bias: Any = None) -> Any:
    """Convolve [N, C, H, W] with weights [out, in / groups, H, W]."""
    dilations = window.dilations
    if dilations != (1, 1) and not weight.is_constant:
        weight, dilations = _with_holes(weight, dilations), (1, 1)
    options = {} if bias is None else {"bias": bias}
    return mb.conv(
        x=x.plain(),
        weight=weight.plain(),
        strides=ints(window.strides),
        pad_type="custom",
        pad=ints([n for pair in window.pads for n in pair]),
        dilations=ints(dilations),
        groups=groups,
        **options,
    )


def _with_holes(weight: Value, dilations: Pair) -> Value:
    """The weight with the zeros that its dilation means."""
    height, width = ((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    stuffed = _with_zeros(weight, dilations)
    return cut(stuffed, [slice(None), slice(None), slice(0, height), slice(0, width)])


def _with_zeros(x: Value, steps: Pair) -> Value:
    """[N, C, H, W] with `step - 1` zeros after each row and column."""
    first, second, height, width = x.shape
    down, across = steps
    if across > 1:
        x = x.become(x.data, (first * second * height, width, 1))
        x = padded(x, [(0, 0), (0, 0), (0, across - 1)])
    if down > 1:
        x = x.become(x.data, (first * second, height, 1, width * across))
        x = padded(x, [(0, 0), (0, 0), (0, down - 1), (0, 0)])
    return x.become(x.data, (first, second, height * down, width * across))


@lowering("ConvTranspose")
def _conv_transpose(call: Call) -> Value:
    window = Window.of(call, call[1].shape[2:], call[0].shape[2:])
    groups, size = int(call.attribute("group", 1)), (call.shape[2], call.shape[3])
    after = _trailing(call, window, size)
    if call[1].is_constant and min(after) >= 0:
        made = _native(call, window, groups, after)
    else:
        made = _stuffed(call[0], call[1], window, groups, size)
    if call.given(2):
        made = mb.add(x=made, y=call[2].at(1, call.shape[1], 1, 1))
    return call[0].become(made, call.shape)


def _trailing(call: Call, window: Window, size: Pair) -> Pair:
    """What to crop after each axis of the whole result to leave the size; negative where it ends early."""
    geometry = zip(call[0].shape[2:], window.kernel, window.strides, window.dilations, strict=True)
    whole = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in geometry]
    rows, columns = (w - pads[0] - n for w, pads, n in zip(whole, window.pads, size, strict=True))
    return rows, columns


def _native(call: Call, window: Window, groups: int, after: Pair) -> Any:
    return mb.conv_transpose(
        x=call[0].plain(),
        weight=call[1].plain(),
        strides=ints(window.strides),
        pad_type="custom",
        pad=ints([n for pair, end in zip(window.pads, after, strict=True) for n in (pair[0], end)]),
        dilations=ints(window.dilations),
        groups=groups,
    )


def _stuffed(x: Value, weight: Value, window: Window, groups: int, size: Pair) -> Any:
    """An ordinary convolution of the input with zeros between its elements, the weight turned around."""
    x = _with_zeros(x, window.strides)
    reach = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    before = [r - pads[0] for r, pads in zip(reach, window.pads, strict=True)]
    after = [n + r - b - m for n, r, b, m in zip(size, reach, before, x.shape[2:], strict=True)]
    edges = zip(before, after, x.shape[2:], strict=True)
    x = cut(x, [slice(None), slice(None), *(slice(max(-b, 0), n + min(a, 0)) for b, a, n in edges)])
    x = padded(x, [(0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True))])
    plain = Window(window.kernel, (1, 1), window.dilations, ((0, 0), (0, 0)))
    return convolve(x, _turned(weight, groups), plain, groups)


def _turned(weight: Value, groups: int) -> Value:
    """[in, out / groups, H, W] turned by 180 degrees, as [out, in / groups, H, W]."""
    inner, outer, height, width = weight.shape
    shape = (groups * outer, inner // groups, height, width)
    order = (groups, inner // groups, outer, height * width)
    if weight.is_constant:
        data = np.flip(weight.data.reshape(weight.shape), (2, 3)).reshape(order).transpose(0, 2, 1, 3)
        return weight.become(np.ascontiguousarray(data).reshape(shape), shape)
    data = weight.plain()
    if height * width > 1:
        data = mb.reverse(x=data, axes=ints((2, 3)))
    return weight.become(reshape(transposed(data, order, (0, 2, 1, 3)), shape), shape)
