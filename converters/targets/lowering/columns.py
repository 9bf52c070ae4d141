# SPDX-License-Identifier: Apache-2.0
"""What the positions of a sliding window read, as the rows of a matrix: convolutions as products.

XNNPACK convolves with constant weights only. With others TFLite's own kernel runs, at a third of the speed of
XNNPACK's products; and the same rows serve the forward pass and the gradient of the weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from edgefl.converters.targets.lowering.value import reshape
from edgefl.graph import Array

_MOST_BYTES = 1 << 25  # of a matrix; larger ones are made in parts
_THIN = 16  # columns of a product; XNNPACK is as fast with twice as many


@dataclass(frozen=True, eq=False)
class Reads:
    """Which rows and columns of an image are read.

    Attributes:
        rows, columns: [positions, taps] along height and width; what lies outside the image is zero.
    """

    rows: Array
    columns: Array

    @staticmethod
    def of(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], before: Sequence[int],
           positions: Sequence[int]) -> Reads:  # fmt: skip
        """Those of a convolution with `before` zeros in front of each axis."""
        rows, columns = (
            np.arange(n)[:, None] * s + np.arange(k) * d - b
            for n, k, s, d, b in zip(positions, kernel, strides, dilations, before, strict=True)
        )
        return Reads(rows, columns)

    @property
    def positions(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    @property
    def taps(self) -> tuple[int, int]:
        return self.rows.shape[1], self.columns.shape[1]

    def places(self, height: int, width: int) -> Array:
        """[positions, taps]: places in the flattened image, `height * width` for what lies outside."""
        (down, across), (p, q) = self.positions, self.taps
        row, column = self.rows.reshape(down, 1, p, 1), self.columns.reshape(1, across, 1, q)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return np.where(inside, row * width + column, height * width).reshape(down * across, p * q)


def matrices(x: Any, reads: Reads) -> Iterator[tuple[slice, Any]]:
    """Taps in runs, each with its matrix `[N positions, taps C]` of what they read of `[N, H, W, C]`."""
    batch, height, width, channels = (int(n) for n in x.shape)
    places = reads.places(height, width)
    count, taps = places.shape
    flat = reshape(x, (batch, height * width, channels))
    if (places == height * width).any():
        flat = tf.concat([flat, np.zeros((batch, 1, channels), np.float32)], 1)
    runs = min(taps, math.ceil(4 * batch * channels * places.size / _MOST_BYTES))
    for first, last in _runs(taps, runs):
        wanted = places[:, first:last].reshape(-1).astype(np.int32)
        whole = len(wanted) == flat.shape[1] and bool((wanted == np.arange(len(wanted))).all())
        rows = flat if whole else tf.gather(flat, wanted, axis=1)
        yield slice(first, last), reshape(rows, (batch * count, (last - first) * channels))


def _runs(length: int, count: int) -> list[tuple[int, int]]:
    edges = [length * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def product(x: Any, kernel: Any, reads: Reads) -> Any:
    """`[N, H, W, C]` and `[taps, C, M]` to `[N, *positions, M]`."""
    made = int(kernel.shape[-1])
    if _is_thin(made, reads):
        pairs = _Pairs.of(reads)
        paired = product(x, _phased(kernel, pairs.chosen), pairs.reads)
        return reshape(paired, (int(x.shape[0]), *reads.positions, made))
    parts = [tf.matmul(rows, reshape(_part(kernel, run), (-1, made))) for run, rows in matrices(x, reads)]
    return reshape(_sum(parts), (int(x.shape[0]), *reads.positions, made))


def _part(kernel: Any, run: slice) -> Any:
    return kernel if run == slice(0, int(kernel.shape[0])) else kernel[run]


def _sum(parts: Sequence[Any]) -> Any:
    total, *rest = parts
    for part in rest:
        total = total + part
    return total


def correlation(x: Any, y: Any, reads: Reads) -> Any:
    """`[N, H, W, C]` and `[N, *positions, M]` to `[M, taps, C]`, the sum over examples and positions."""
    made, channels = int(y.shape[-1]), int(x.shape[-1])
    if _is_thin(made, reads):
        return _parted(x, y, reads)
    left = reshape(y, (-1, made))
    parts = [
        reshape(tf.matmul(left, rows, transpose_a=True), (made, run.stop - run.start, channels))
        for run, rows in matrices(x, reads)
    ]
    return parts[0] if len(parts) == 1 else tf.concat(parts, 1)


def _is_thin(made: int, reads: Reads) -> bool:
    """Whether a product has fewer columns than XNNPACK computes at once, and neighbours read the same."""
    return made <= _THIN and reads.taps[1] > 1 and reads.positions[1] % 2 == 0


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Neighbouring positions along the width as one, with a column of the product each.

    Attributes:
        reads: of both positions together.
        places: [2, taps along the width], where each position's taps are among those read for both.
        chosen: [steps, 2], the tap in the flattened kernel that each position reads there; the number of taps
            where it reads none.
    """

    reads: Reads
    places: Array
    chosen: Array

    @staticmethod
    def of(reads: Reads) -> _Pairs:
        offsets = reads.columns[:2] - reads.columns[0, 0]
        steps, places = np.unique(offsets, return_inverse=True)
        places = places.reshape(offsets.shape)
        columns = np.full((len(steps), 2), -1)
        for phase, row in enumerate(places):
            columns[row, phase] = np.arange(len(row))
        rows, count = np.arange(reads.taps[0])[:, None], reads.taps[0] * reads.taps[1]
        chosen = _outer(rows, columns, reads.taps[1], count)
        return _Pairs(Reads(reads.rows, reads.columns[::2, :1] + steps), places, chosen)


def _parted(x: Any, y: Any, reads: Reads) -> Any:
    """A correlation by pairs: each position's taps taken from those of its pair, and added."""
    pairs, made, channels = _Pairs.of(reads), int(y.shape[-1]), int(x.shape[-1])
    whole = correlation(x, reshape(y, (int(y.shape[0]), *pairs.reads.positions, 2 * made)), pairs.reads)
    down, steps = pairs.reads.taps
    by_phase = reshape(whole, (2, made * down, steps, channels))
    first, second = (
        tf.gather(by_phase[phase], places.astype(np.int32), axis=1)
        for phase, places in enumerate(pairs.places)
    )
    return reshape(first + second, (made, reads.taps[0] * reads.taps[1], channels))


def scattered(x: Any, kernel: Any, strides: Sequence[int], before: Sequence[int], size: Sequence[int],
              taps: Sequence[int]) -> Any:  # fmt: skip
    """A transposed convolution: `[N, H, W, M]` and `[taps, M, C]` to `[N, *size, C]`.

    Results at one place modulo the strides read the same taps. All of them come from one product, whose
    columns are the places modulo the strides, and whose rows are the places divided by them.
    """
    channels = int(kernel.shape[-1])
    axes = [_Phases.of(*axis) for axis in zip(taps, strides, before, size, strict=True)]
    reads = Reads(*(axis.reads for axis in axes))
    chosen = _outer(axes[0].taps, axes[1].taps, int(taps[1]), int(kernel.shape[0]))
    made = product(x, _phased(kernel, chosen), reads)
    return _interleaved(made, strides, channels)[:, : size[0], : size[1]]


@dataclass(frozen=True, eq=False)
class _Phases:
    """Along one axis: what is read for each place divided by the stride, and with which tap per phase.

    Attributes:
        reads: [places / stride, steps].
        taps: [steps, stride]; -1 where none.
    """

    reads: Array
    taps: Array

    @staticmethod
    def of(taps: int, stride: int, before: int, size: int) -> _Phases:
        pairs = {
            ((phase + before - tap) // stride, phase): tap
            for phase in range(stride)
            for tap in range(taps)
            if (phase + before - tap) % stride == 0
        }
        steps = sorted({step for step, _ in pairs})
        chosen = [[pairs.get((step, phase), -1) for phase in range(stride)] for step in steps]
        return _Phases(np.arange(-(-size // stride))[:, None] + np.array(steps), np.array(chosen))


def _outer(rows: Array, columns: Array, width: int, none: int) -> Array:
    """[steps, phases] of both axes together: the tap in the flattened kernel, `none` where there is none."""
    a, b = rows[:, None, :, None], columns[None, :, None, :]
    taps = np.where((a >= 0) & (b >= 0), a * width + b, none)
    return taps.reshape(len(rows) * len(columns), -1)


def _phased(kernel: Any, chosen: Array) -> Any:
    """`[taps, C, M]` to `[steps, C, phases M]`, the chosen tap for each, zeros where there is none."""
    inner, made = (int(n) for n in kernel.shape[1:])
    steps, phases = chosen.shape
    turned = tf.gather(_with_zeros(kernel, chosen), chosen.reshape(-1).astype(np.int32), axis=0)
    if phases > 1:
        turned = tf.transpose(reshape(turned, (steps, phases, inner, made)), [0, 2, 1, 3])
    return reshape(turned, (steps, inner, phases * made))


def _with_zeros(kernel: Any, chosen: Array) -> Any:
    count, *inner = (int(n) for n in kernel.shape)
    return tf.concat([kernel, np.zeros((1, *inner), np.float32)], 0) if (chosen == count).any() else kernel


def _interleaved(made: Any, strides: Sequence[int], channels: int) -> Any:
    """`[N, H, W, strides C]` to `[N, H stride, W stride, C]`."""
    batch, height, width, _ = (int(n) for n in made.shape)
    down, across = strides
    if (down, across) == (1, 1):
        return made
    parted = reshape(made, (batch * height, width, down, across * channels))
    return reshape(tf.transpose(parted, [0, 2, 1, 3]), (batch, height * down, width * across, channels))
