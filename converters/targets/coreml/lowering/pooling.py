# SPDX-License-Identifier: Apache-2.0
"""Pooling over height and width."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Builder as mb

from edgefl.converters.targets.coreml.lowering.convolution import Pair, Window
from edgefl.converters.targets.coreml.lowering.registry import Call, lowering
from edgefl.converters.targets.coreml.lowering.shape import cut, padded
from edgefl.converters.targets.coreml.lowering.value import Value, ints

_LOWEST = -3e4  # below any activation, and still a float16


@lowering("MaxPool")
def _max_pool(call: Call) -> Value:
    window = Window.of(call, call.ints("kernel_shape", ()), call[0].shape[2:])
    pads = _reaching(window, call)
    if len(call.types) > 1:
        raise call.refuse("the places of maxima as a second output")
    if window.dilations == (1, 1):
        return call[0].become(_pool(mb.max_pool, call[0], window, pads), call.shape)
    return _dilated_max(padded(call[0], [(0, 0), (0, 0), *pads], _LOWEST), window, call.shape)


@lowering("AveragePool")
def _average_pool(call: Call) -> Value:
    """Padding counts in the mean or not; where ceil mode reaches past what counts, means are scaled up."""
    window = Window.of(call, call.ints("kernel_shape", ()), call[0].shape[2:])
    if window.dilations != (1, 1):
        raise call.refuse("dilated average pooling")
    pads = _reaching(window, call)
    counted = bool(call.attribute("count_include_pad", 0)) and any(map(any, pads))
    made = _pool(mb.avg_pool, call[0], window, pads, exclude_padding_from_average=not counted)
    scale = _scale(window, pads, call)
    if counted and not np.all(scale == 1):
        made = mb.mul(x=made, y=scale)
    return call[0].become(made, call.shape)


def _pool(function: Any, x: Value, window: Window, pads: tuple[Pair, Pair], **options: Any) -> Any:
    return function(
        x=x.plain(),
        kernel_sizes=ints(window.kernel),
        strides=ints(window.strides),
        pad_type="custom",
        pad=ints([n for pair in pads for n in pair]),
        **options,
    )


def _reaching(window: Window, call: Call) -> tuple[Pair, Pair]:
    """Pads that give exactly the output's positions: ceil mode reaches past the pads the node names."""
    pairs = []
    for axis in range(2):
        before = window.pads[axis][0]
        reach = (call.shape[2 + axis] - 1) * window.strides[axis]
        reach += window.dilations[axis] * (window.kernel[axis] - 1) + 1
        pairs.append((before, max(reach - before - call[0].shape[2 + axis], 0)))
    return pairs[0], pairs[1]


def _scale(window: Window, pads: tuple[Pair, Pair], call: Call) -> Any:
    """Window size over the number of elements that count, [1, 1, H, W]."""
    scales = []
    for axis in range(2):
        length, kernel, stride = call[0].shape[2 + axis], window.kernel[axis], window.strides[axis]
        last = pads[axis][0] + length + window.pads[axis][1]
        starts = np.arange(call.shape[2 + axis]) * stride
        scales.append(kernel / (np.minimum(starts + kernel, last) - starts))
    return np.outer(*scales).astype(np.float32)[None, None]


def _dilated_max(x: Value, window: Window, shape: tuple[int, ...]) -> Value:
    """Maximum over shifted slices, one per place in the window."""
    (height, width), (down, across) = shape[2:4], window.strides
    whole, shifted = slice(None), []
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, left = row * window.dilations[0], column * window.dilations[1]
            rows = slice(top, top + (height - 1) * down + 1, down)
            columns = slice(left, left + (width - 1) * across + 1, across)
            shifted.append(cut(x, [whole, whole, rows, columns]).plain())
    return x.become(reduce(lambda a, b: mb.maximum(x=a, y=b), shifted), shape)
