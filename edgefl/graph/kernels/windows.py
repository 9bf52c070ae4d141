# SPDX-License-Identifier: Apache-2.0
"""Sliding windows over the spatial axes of `[N, C, spatial...]`: their geometry, and views of them.

Shared by convolutions and pools of any number of spatial axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.graph.kernels.arguments import integer, integers, text
from edgefl.graph.kernels.registry import Attributes
from edgefl.graph.model import Array


@dataclass(frozen=True)
class Windows:
    """Where windows lie, one number per spatial axis.

    Attributes:
        before, after: padding on each side, including what `ceil_mode` adds after.
        out: number of windows.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def trivial(self) -> bool:
        """Whether every window is exactly one input element, in order."""
        ones = (1,) * len(self.kernel)
        return self.kernel == self.strides == ones and not any(self.before + self.after)

    def taps(self) -> Iterator[tuple[Any, ...]]:
        """For each place in the kernel, row-major, an index into the padded input: one element per window."""
        for place in itertools.product(*map(range, self.kernel)):
            starts = [k * d for k, d in zip(place, self.dilations, strict=True)]
            axes = zip(starts, self.out, self.strides, strict=True)
            yield ..., *(slice(start, start + (n - 1) * step + 1, step) for start, n, step in axes)


def windows(
    shape: tuple[int, ...], kernel: tuple[int, ...], attributes: Attributes, weighted: bool = False
) -> Windows:
    """Windows of a Conv or pool node over an input `[N, C, spatial...]`.

    Raises:
        ValueError: attribute lengths do not fit, or no window fits the input.
    """
    rank = len(shape) - 2
    ones = (1,) * rank
    strides, dilations = integers(attributes, "strides", ones), integers(attributes, "dilations", ones)
    pads = integers(attributes, "pads", (0,) * 2 * rank)
    if not rank == len(kernel) == len(strides) == len(dilations) == len(pads) // 2 or len(pads) % 2:
        raise ValueError(
            f"kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads} for shape {shape}"
        )
    if min((*kernel, *strides, *dilations)) < 1 or min(pads) < 0:
        raise ValueError(
            f"kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads} must be positive"
        )
    ceil = bool(integer(attributes, "ceil_mode", 0))
    auto = text(attributes, "auto_pad", "NOTSET")
    axes = [
        _axis(n, (k - 1) * d + 1, s, (pads[i], pads[rank + i]), auto, ceil)
        for i, (n, k, s, d) in enumerate(zip(shape[2:], kernel, strides, dilations, strict=True))
    ]
    before, after, out = (tuple(axis[i] for axis in axes) for i in range(3))
    if min(out) < 1:
        raise ValueError(
            f"windows of {kernel} with dilations {dilations} do not fit shape {shape} with pads {pads}"
        )
    return Windows(kernel, strides, dilations, before, after, out)


def _axis(
    n: int, extent: int, stride: int, pads: tuple[int, int], auto: str, ceil: bool
) -> tuple[int, int, int]:
    """Padding before and after and number of windows on one axis; `extent` is the dilated kernel's size."""
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        out = -(-n // stride)
        total = max((out - 1) * stride + extent - n, 0)
        small, large = total // 2, total - total // 2
        return (small, large, out) if auto == "SAME_UPPER" else (large, small, out)
    if auto not in ("NOTSET", "VALID", ""):
        raise ValueError(f"auto_pad {auto!r} is none of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
    before, after = (0, 0) if auto == "VALID" else pads
    room = n + before + after - extent
    out = room // stride + 1
    if ceil and room % stride and out * stride < n + before:
        out += 1  # a last window may hang over the end, but must start on the input or the padding before it
    return before, max(after, (out - 1) * stride + extent - n - before), out


def pad_spatial(x: Array, geometry: Windows, value: float) -> Array:
    """The input with its spatial axes padded."""
    if not any(geometry.before + geometry.after):
        return x
    shape = [n + b + a for n, b, a in zip(x.shape[2:], geometry.before, geometry.after, strict=True)]
    padded = np.full((*x.shape[:2], *shape), value, x.dtype)
    padded[inner(geometry.before, x.shape[2:])] = x
    return padded


def inner(before: tuple[int, ...], size: tuple[int, ...]) -> tuple[Any, ...]:
    """An index to `size` elements of each spatial axis after the first `before`."""
    return ..., *(slice(b, b + n) for b, n in zip(before, size, strict=True))


def window_view(padded: Array, geometry: Windows) -> Array:
    """A read-only view `[N, C, kernel..., out...]` of the padded input."""
    strides = padded.strides[2:]
    return np.lib.stride_tricks.as_strided(
        padded,
        (*padded.shape[:2], *geometry.kernel, *geometry.out),
        (
            *padded.strides[:2],
            *(step * d for step, d in zip(strides, geometry.dilations, strict=True)),
            *(step * s for step, s in zip(strides, geometry.strides, strict=True)),
        ),
        writeable=False,
    )
