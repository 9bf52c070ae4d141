# SPDX-License-Identifier: Apache-2.0
"""Windows of convolutions and pools, and how much is padded around."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tests.coreml_evaluator.blobs import Array
from tests.coreml_evaluator.errors import Refused
from tests.coreml_evaluator.registry import ints


def windows(x: Array, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Array:
    """A view `[N, C, *out, *kernel]` of `[N, C, *in]`."""
    axes = tuple(range(2, x.ndim))
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if any(n < r for n, r in zip(x.shape[2:], reach, strict=True)):
        raise Refused(f"a window of {reach} over {x.shape[2:]}")
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    steps = tuple(slice(None, None, s) for s in stride)
    inside = tuple(slice(None, None, d) for d in dilation)
    return seen[(slice(None), slice(None), *steps, *inside)]


def paddings(
    kind: str, size: Sequence[int], reach: Sequence[int], stride: Sequence[int], pad: Array | None
) -> list[tuple[int, int]]:
    """Before and after each spatial dimension, by the padding's name."""
    if kind == "valid":
        return [(0, 0)] * len(size)
    if kind == "custom":
        edges = ints(pad) if pad is not None else []
        if len(edges) != 2 * len(size):
            raise Refused(f"custom padding {edges} for {len(size)} dimensions")
        return list(zip(edges[::2], edges[1::2], strict=True))
    if kind not in ("same", "same_lower"):
        raise Refused(f"padding {kind!r}")
    totals = [max(0, (-(-n // s) - 1) * s + r - n) for n, r, s in zip(size, reach, stride, strict=True)]
    return [(t - t // 2, t // 2) if kind == "same_lower" else (t // 2, t - t // 2) for t in totals]
