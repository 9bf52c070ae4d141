# SPDX-License-Identifier: Apache-2.0
"""Pools of MIL."""

from __future__ import annotations

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused
from tests.coreml_evaluator.registry import ints, op
from tests.coreml_evaluator.windows import paddings, windows

_CONSTANT = "kernel_sizes strides pad_type pad ceil_mode exclude_padding_from_average"


@op("max_pool", constant=_CONSTANT)
def max_pool(
    x: Array,
    kernel_sizes: Array,
    pad_type: str,
    strides: Array | None = None,
    pad: Array | None = None,
    ceil_mode: bool = False,
) -> Array:
    seen = _Pool(x, kernel_sizes, pad_type, strides, pad, ceil_mode).over(x, -np.inf)
    return np.asarray(seen.max(axis=tuple(range(x.ndim, seen.ndim))))


@op("avg_pool", constant=_CONSTANT)
def avg_pool(
    x: Array,
    kernel_sizes: Array,
    pad_type: str,
    strides: Array | None = None,
    pad: Array | None = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Array:
    pool = _Pool(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    axes = tuple(range(x.ndim, 2 * x.ndim - 2))
    ones = np.ones((1, 1, *x.shape[2:]), np.float32)
    counted = pool.over(ones, 0.0 if exclude_padding_from_average else 1.0)
    return np.asarray(pool.over(x, 0.0).sum(axis=axes) / counted.sum(axis=axes))


@op("l2_pool", constant=_CONSTANT)
def l2_pool(
    x: Array,
    kernel_sizes: Array,
    pad_type: str,
    strides: Array | None = None,
    pad: Array | None = None,
    ceil_mode: bool = False,
) -> Array:
    seen = _Pool(x, kernel_sizes, pad_type, strides, pad, ceil_mode).over(x, 0.0)
    return np.asarray(np.sqrt(np.square(seen).sum(axis=tuple(range(x.ndim, seen.ndim)))))


class _Pool:
    def __init__(
        self,
        x: Array,
        kernel_sizes: Array,
        pad_type: str,
        strides: Array | None,
        pad: Array | None,
        ceil_mode: bool,
    ) -> None:
        self.kernel = ints(kernel_sizes)
        self.stride = ints(strides) if strides is not None else [1] * len(self.kernel)
        self.pads = paddings(pad_type, x.shape[2:], self.kernel, self.stride, pad)
        self.extra = [0] * len(self.kernel)
        if ceil_mode:
            if pad_type.startswith("same") or any(a != b for a, b in self.pads):
                raise Refused(f"ceil_mode with {pad_type} padding {self.pads}")
            self.extra = [self._beyond(n, i) for i, n in enumerate(x.shape[2:])]

    def over(self, x: Array, padding: float) -> Array:
        """Windows `[N, C, *out, *kernel]`, with a value for the padding and none counted beyond it."""
        beyond = -np.inf if padding == -np.inf else 0.0
        around = np.pad(x, [(0, 0), (0, 0), *self.pads], constant_values=padding)
        more = np.pad(around, [(0, 0), (0, 0), *[(0, n) for n in self.extra]], constant_values=beyond)
        return windows(more, self.kernel, self.stride, [1] * len(self.kernel))

    def _beyond(self, size: int, i: int) -> int:
        (before, after), kernel, stride = self.pads[i], self.kernel[i], self.stride[i]
        padded = size + before + after
        count = -(-(padded - kernel) // stride) + 1
        if (before or after) and (count - 1) * stride >= size + before:
            count -= 1
        return max(0, (count - 1) * stride + kernel - padded)
