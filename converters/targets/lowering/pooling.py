# SPDX-License-Identifier: Apache-2.0
"""Pooling over height and width of channel-last data."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.convolution import CHANNEL_LAST, Window, channel_last, spatial
from edgefl.converters.targets.lowering.reduction import reduced
from edgefl.converters.targets.lowering.registry import Call, lowering
from edgefl.converters.targets.lowering.shape import padded
from edgefl.converters.targets.lowering.value import Lazy


@lowering("GlobalAveragePool")
def _global_average(call: Call) -> Lazy:
    return reduced(tf.reduce_mean, call[0], tuple(range(2, call[0].rank)), True)


@lowering("MaxPool")
def _max_pool(call: Call) -> Lazy:
    x, window = channel_last(call[0]), _window(call)
    pads = _reaching(window, call)
    lowest = np.finfo(np.float32).min
    if window.dilations != (1, 1):
        return Lazy(_dilated_max(padded(x, spatial(pads), lowest), window, call.shape), CHANNEL_LAST)
    if Window(window.kernel, window.strides, (1, 1), pads).is_same(call[0].shape[2:]):  # type: ignore[arg-type]
        return Lazy(tf.nn.max_pool2d(x, window.kernel, window.strides, "SAME"), CHANNEL_LAST)
    x = padded(x, spatial(pads), lowest)
    return Lazy(tf.nn.max_pool2d(x, window.kernel, window.strides, "VALID"), CHANNEL_LAST)


@lowering("AveragePool")
def _average_pool(call: Call) -> Lazy:
    """Padding counts in the mean or not; where it does not, means over zeros are scaled up again."""
    x, window = channel_last(call[0]), _window(call)
    pads, size = _reaching(window, call), call[0].shape[2:]
    if window.dilations != (1, 1):
        raise call.refuse("dilated average pooling")
    same = Window(window.kernel, window.strides, (1, 1), pads).is_same(size)  # type: ignore[arg-type]
    counted = bool(call.attribute("count_include_pad", 0))
    if same and (not counted or not any(map(any, pads))):
        return Lazy(tf.nn.avg_pool2d(x, window.kernel, window.strides, "SAME"), CHANNEL_LAST)
    mean = tf.nn.avg_pool2d(padded(x, spatial(pads)), window.kernel, window.strides, "VALID")
    scale = _scale(window, pads, call, counted)
    return Lazy(mean if np.all(scale == 1) else mean * scale, CHANNEL_LAST)


def _window(call: Call) -> Window:
    return Window.of(call, call.ints("kernel_shape", ()), call[0].shape[2:])  # type: ignore[arg-type]


def _reaching(window: Window, call: Call) -> tuple[tuple[int, int], tuple[int, int]]:
    """Pads that give exactly the output's positions: ceil mode reaches past the pads the node names."""
    pairs = []
    for axis in range(2):
        before = window.pads[axis][0]
        reach = (call.shape[2 + axis] - 1) * window.strides[axis]
        reach += window.dilations[axis] * (window.kernel[axis] - 1) + 1
        pairs.append((before, max(reach - before - call[0].shape[2 + axis], 0)))
    return pairs[0], pairs[1]


def _scale(window: Window, pads: Any, call: Call, counted: bool) -> Any:
    """Window size over the number of elements that count, [1, H, W, 1]."""
    scales = []
    for axis in range(2):
        length, kernel, stride = call[0].shape[2 + axis], window.kernel[axis], window.strides[axis]
        named = window.pads[axis] if counted else (0, 0)
        first, last = pads[axis][0] - named[0], pads[axis][0] + length + named[1]
        starts = np.arange(call.shape[2 + axis]) * stride
        counts = np.minimum(starts + kernel, last) - np.maximum(starts, first)
        scales.append((kernel / counts).astype(np.float32))
    return np.outer(*scales).reshape(1, len(scales[0]), len(scales[1]), 1).astype(np.float32)


def _dilated_max(x: Any, window: Window, shape: tuple[int, ...]) -> Any:
    """Maximum over shifted slices, one per place in the window."""
    (height, width), (down, across) = shape[2:4], window.strides
    shifted = []
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, left = row * window.dilations[0], column * window.dilations[1]
            rows = slice(top, top + (height - 1) * down + 1, down)
            columns = slice(left, left + (width - 1) * across + 1, across)
            shifted.append(x[:, rows, columns])
    return reduce(tf.maximum, shifted)
