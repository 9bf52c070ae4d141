# SPDX-License-Identifier: Apache-2.0
"""Sliding windows over spatial axes: what convolutions and pools read, and the adjoint of reading it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgefl.converters.autodiff.expression import Expr, add_all, concat, zeros_like
from edgefl.converters.autodiff.registry import NoGradient, Op
from edgefl.graph.model import Array

Taps = dict[tuple[int, ...], Expr]
"""For each position in the kernel, one tensor of the output's spatial shape."""


@dataclass(frozen=True)
class Window:
    """A kernel sliding over the last axes of a tensor whose first two axes are not spatial.

    Attributes:
        size: spatial shape of what is read.
        out: number of positions per axis.
        kernel, strides, dilations: per axis.
        before: padding in front of each axis.
        after: declared padding behind each axis; positions may reach beyond it (`ceil_mode`).
    """

    size: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @staticmethod
    def of(op: Op, size: Sequence[int], out: Sequence[int], kernel: Sequence[int]) -> Window:
        """The window of a Conv, ConvTranspose or pool node; raises NoGradient for implicit padding."""
        n = len(size)
        if op.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            raise NoGradient(f"auto_pad={op.text('auto_pad', '')} is not made explicit")
        pads = op.integers("pads", (0,) * (2 * n))
        return Window(
            tuple(size), tuple(out), tuple(kernel),
            op.integers("strides", (1,) * n), op.integers("dilations", (1,) * n), pads[:n], pads[n:],
        )  # fmt: skip

    @property
    def reach(self) -> tuple[int, ...]:
        """How far the last position reads, counted from the start of the padding in front."""
        rows = zip(self.out, self.strides, self.kernel, self.dilations, strict=True)
        return tuple((o - 1) * s + (k - 1) * d + 1 for o, s, k, d in rows)

    @property
    def positions(self) -> list[tuple[int, ...]]:
        """Kernel positions in raster order."""
        return list(itertools.product(*map(range, self.kernel)))

    def taps(self, x: Expr, fill: float = 0.0, first: int = 2) -> Taps:
        """What each kernel position sees of `x`, whose spatial axes begin at `first`."""
        behind = [max(r - b - n, 0) for r, b, n in zip(self.reach, self.before, self.size, strict=True)]
        others = x.rank - first - len(self.size)
        padded = x.pad([(0, 0)] * first + [*zip(self.before, behind, strict=True)] + [(0, 0)] * others, fill)
        return {position: self._tap(padded, position, first) for position in self.positions}

    def _tap(self, padded: Expr, position: tuple[int, ...], first: int) -> Expr:
        starts = [i * d for i, d in zip(position, self.dilations, strict=True)]
        stops = [b + (o - 1) * s + 1 for b, o, s in zip(starts, self.out, self.strides, strict=True)]
        return padded.slices(range(first, first + len(starts)), starts, stops, self.strides)

    def scatter(self, taps: Taps) -> Expr:
        """The adjoint of `taps`: adds each tap back to where it was read; returns the shape of `x`."""
        for axis in reversed(range(len(self.size))):
            rows: dict[tuple[int, ...], list[tuple[int, Expr]]] = {}
            for position, tap in taps.items():
                rows.setdefault(position[:axis], []).append((position[axis] * self.dilations[axis], tap))
            taps = {outer: self._combine(pairs, axis) for outer, pairs in rows.items()}
        return taps[()]

    def _combine(self, taps: Sequence[tuple[int, Expr]], axis: int) -> Expr:
        length = max(self.reach[axis], self.before[axis] + self.size[axis])
        whole = spread(taps, axis + 2, self.strides[axis], length)
        return whole.slice(axis + 2, self.before[axis], self.before[axis] + self.size[axis])

    def counts(self, include_pad: bool) -> Array:
        """How many elements each position averages, of shape `out`."""
        total = np.ones((1,) * len(self.out), np.int64)
        for axis, n in enumerate(self.out):
            first, last = -self.before[axis], self.size[axis] + self.after[axis]
            low, high = (first, last) if include_pad else (0, self.size[axis])
            starts = np.arange(n)[:, None] * self.strides[axis] - self.before[axis]
            reads = starts + np.arange(self.kernel[axis]) * self.dilations[axis]
            count = ((reads >= low) & (reads < high)).sum(1)
            total = total * count.reshape([-1 if a == axis else 1 for a in range(len(self.out))])
        return total


def spread(taps: Sequence[tuple[int, Expr]], axis: int, stride: int, length: int) -> Expr:
    """The sum over `(offset, tap)` of `tap` placed at offset, offset + stride, ... along an axis of `length`.

    Taps whose offsets agree modulo the stride are added first, at the taps' own resolution, and the
    stride's residues are interleaved once at the end.
    """
    rows = -(-length // stride)
    phases: list[list[Expr]] = [[] for _ in range(stride)]
    for offset, tap in taps:
        before = offset // stride
        phases[offset % stride].append(tap.pad_axis(axis, before, rows - before - tap.shape[axis]))
    shape = next(phase[0].shape for phase in phases if phase)
    empty = zeros_like(taps[0][1], shape)
    whole = interleave([add_all(phase) if phase else empty for phase in phases], axis)
    return whole.slice(axis, 0, length)


def interleave(tensors: Sequence[Expr], axis: int) -> Expr:
    """`[a0, b0, a1, b1, ...]` along an axis, for tensors of one shape."""
    if len(tensors) == 1:
        return tensors[0]
    shape = tensors[0].shape
    outer = int(np.prod(shape[: axis + 1]))
    inner = int(np.prod(shape[axis + 1 :]))
    if inner == 1:
        # Engines transpose a matrix by blocks, but join single elements one at a time.
        joined = concat([t.reshape((1, outer)) for t in tensors], axis=0).transpose(1, 0)
    else:
        joined = concat([t.reshape((outer, inner)) for t in tensors], axis=1)
    return joined.reshape((*shape[:axis], shape[axis] * len(tensors), *shape[axis + 1 :]))
