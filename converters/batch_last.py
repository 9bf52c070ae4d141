# SPDX-License-Identifier: Apache-2.0
"""Images with the batch behind their spatial axes, for the convolutions of a step that keeps channels last.

An image `[N, C, H, W]` becomes `[1, C, H, W N]` ("flat"), examples side by side in every pixel; channels
last, its memory is that of a matrix whose rows are (h, w, n). A shift by a pixel is then a shift by N rows:
for convolutions a dilation, and what a weight's gradient or a pool cuts out of an image are long runs of
memory instead of single pixels. Where an operator has no such form, the image is turned back before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from edgefl.converters.autodiff.expression import Expr, add_all
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.graft import graft, required
from edgefl.converters.normalize.convolution import Window, window
from edgefl.converters.normalize.registry import integer, integers
from edgefl.converters.normalize.simplify import BROADCAST, UNARY
from edgefl.graph.model import Graph, Node

_BATCH = 4  # examples: with fewer, runs are hardly longer than those of images as they were
_STRIDE = 2  # along rows; past it an image falls into too many parts


def suits(graph: Graph, bound: Collection[str], wanted: Collection[str]) -> bool:
    """Whether what lies between tensors of a graph gains: dense convolutions, over enough examples."""
    nodes = required(graph, wanted, bound)
    found = [node for node in nodes if node.op == "Conv"]
    read = [graph.type_of(node.inputs[0]).shape for node in found]
    wide = any(_overlaps(node, graph.type_of(node.inputs[1]).shape[2:]) for node in found)
    dense = all(integer(node, "group", 1) == 1 for node in found)
    many = all(shape[0] >= _BATCH and len(shape) == 4 for shape in read)
    return wide and dense and many and all(node.op != "ConvTranspose" for node in nodes)


def _overlaps(node: Node, kernel: Sequence[int]) -> bool:
    """Whether a pixel is read at more than one place of the kernel; patches side by side are one product."""
    strides = integers(node, "strides", (1,) * len(kernel))
    return any(size > stride for size, stride in zip(kernel, strides, strict=True))


def graft_flat(
    builder: GraphBuilder, graph: Graph, bound: Mapping[str, str], wanted: Collection[str]
) -> dict[str, str]:
    """As `graft`, with images between the operators flat.

    Returns:
        The builder's name of every bound or wanted tensor, in its own shape.
    """
    made = _Flattening(builder, graph, bound)
    for node in required(graph, wanted, bound):
        builder.scope = node.name
        made.add(node)
    builder.scope = ""
    return {name: made.plain(name).name for name in (*bound, *wanted)}


class _Flattening:
    """Tensors of a graph in a builder: in their own shape, flat, or both where both are read."""

    def __init__(self, builder: GraphBuilder, graph: Graph, bound: Mapping[str, str]) -> None:
        self._builder, self._graph = builder, graph
        self._plain = {name: Expr(builder, tensor) for name, tensor in bound.items()}
        self._flat: dict[str, Expr] = {}

    def plain(self, name: str) -> Expr:
        if name not in self._plain:
            constant = self._graph.constants.get(name)
            self._plain[name] = (
                _unflattened(self._flat[name], self._shape(name))
                if constant is None
                else Expr(self._builder, self._builder.constant(constant))
            )
        return self._plain[name]

    def flat(self, name: str) -> Expr:
        if name not in self._flat:
            self._flat[name] = _flattened(self.plain(name))
        return self._flat[name]

    def add(self, node: Node) -> None:
        """The node, on flat inputs where it has such a form."""
        reads_flat = any(t in self._flat for t in node.inputs)
        flat = self._of_flat(node) if reads_flat or node.op == "Conv" else None
        if flat is not None:
            self._flat[node.outputs[0]] = flat
        elif reads_flat and (made := self._reduced(node)):
            self._plain[node.outputs[0]] = made
        else:
            self._copy(node)

    def _shape(self, name: str) -> tuple[int, ...]:
        return self._graph.type_of(name).shape

    def _copy(self, node: Node) -> None:
        bound = {t: self.plain(t).name for t in node.inputs if t}
        wanted = [t for t in node.outputs if t]
        made = graft(self._builder, Graph({}, {}, (node,)), bound, wanted)
        self._plain.update({t: Expr(self._builder, made[t]) for t in wanted})

    def _of_flat(self, node: Node) -> Expr | None:
        if node.op == "Conv":
            return self._convolved(node)
        if node.op in ("MaxPool", "AveragePool"):
            return self._pooled(node)
        return self._element_wise(node) if node.op in (*UNARY, *BROADCAST) else None

    def _convolved(self, node: Node) -> Expr | None:
        """A convolution per residue of the columns modulo the stride, and their sum."""
        batch, _, height, width = self._shape(node.inputs[0])
        seen = window(node, (height, width), self._shape(node.inputs[1])[2:])
        stride, dilation = seen.strides[1], seen.dilations[1]
        plain = integer(node, "group", 1) == 1 and len(node.inputs) == 2
        if not plain or stride > _STRIDE or (stride > 1 and (dilation > 1 or width % stride)):
            return None
        x, w = self.flat(node.inputs[0]), self.plain(node.inputs[1])
        out = self._shape(node.outputs[0])[3]
        parts = []
        for residue in range(min(stride, seen.kernel[1])):
            places = range(residue, seen.kernel[1], stride)  # in the kernel
            first, phase = divmod(residue * dilation - seen.before[1], stride)
            last = first + (len(places) - 1) * dilation
            columns = x if stride == 1 else _columns(x, phase, stride, batch)
            weight = w if stride == 1 else w.slice(3, residue, seen.kernel[1], stride)
            if first < columns.shape[3] // batch and out + last > 0:  # else it reads padding only
                parts.append(_convolve(columns, weight, seen, (first, out + last), batch))
        return add_all(parts) if parts else None

    def _pooled(self, node: Node) -> Expr | None:
        """Over windows side by side; of equal pixels the first in raster order has the maximum's gradient."""
        batch, channels, *size = self._shape(node.inputs[0])
        seen = window(node, size, integers(node, "kernel_shape"))
        out = self._shape(node.outputs[0])[2:]
        read = [n * k for n, k in zip(out, seen.kernel, strict=True)]
        apart = seen.kernel == seen.strides and not any(seen.pads) and set(seen.dilations) == {1}
        if not apart or len(node.outputs) > 1 or any(n > m for n, m in zip(read, size, strict=True)):
            return None
        x = self.flat(node.inputs[0]).slices([2, 3], [0, 0], [read[0], read[1] * batch], [1, 1])
        most, *rest = pixels = _pixels(x, out, seen.kernel, batch * channels)
        if node.op == "AveragePool":
            return _image(add_all(pixels) * (1 / len(pixels)), out[0], channels)
        for pixel in rest:
            most = most.apply("GreaterOrEqual", pixel).where(most, pixel)
        return _image(most, out[0], channels)

    def _reduced(self, node: Node) -> Expr | None:
        """The sum or mean of each image, as in a global pool, or of each channel; no longer an image."""
        shape = self._shape(node.inputs[0])
        axes = self._graph.constants.get(node.inputs[1]) if node.op in ("ReduceSum", "ReduceMean") else None
        if axes is None or len(shape) != 4:
            return None
        x, out, reduced = self.flat(node.inputs[0]), self._shape(node.outputs[0]), {int(a) % 4 for a in axes}
        if reduced == {2, 3}:
            rows = _rows(x).reshape((-1, *shape[:2]))
            return rows.apply(node.op, rows.constant(np.array([0]), np.int64), keepdims=0).reshape(out)
        if reduced == {0, 2, 3}:
            return x.apply(node.op, x.constant(np.array([0, 2, 3]), np.int64), keepdims=0).reshape(out)
        return None

    def _element_wise(self, node: Node) -> Expr | None:
        shape = self._shape(node.outputs[0])
        if len(shape) != 4 or not all(node.inputs):
            return None
        inputs = []
        for name in node.inputs:
            image = self._shape(name) == shape
            if not image and not _is_per_channel(self._shape(name)):
                return None
            inputs.append(self.flat(name) if image else self.plain(name))
        return inputs[0].apply(node.op, *inputs[1:], **node.attributes)


def _is_per_channel(shape: tuple[int, ...]) -> bool:
    aligned = (1, 1, 1, 1, *shape)[-4:]
    return len(shape) <= 4 and aligned[0] == 1 and aligned[2:] == (1, 1)


def _convolve(x: Expr, w: Expr, seen: Window, read: tuple[int, int], batch: int) -> Expr:
    """A convolution of a flat image with stride 1 along its rows.

    Args:
        read: the first column that is read, and the one behind the last; both may lie outside.
    """
    width = x.shape[3] // batch
    before, after = -read[0], read[1] - width
    x = x.slice(3, max(-before, 0) * batch, (width + min(after, 0)) * batch)
    return x.apply(
        "Conv", w, kernel_shape=w.shape[2:], group=1, strides=(seen.strides[0], 1),
        dilations=(seen.dilations[0], seen.dilations[1] * batch),
        pads=(seen.before[0], max(before, 0) * batch, seen.after[0], max(after, 0) * batch),
    )  # fmt: skip


def _flattened(x: Expr) -> Expr:
    """`[N, C, H, W]` to `[1, C, H, W N]`."""
    return _image(x.transpose(2, 3, 0, 1), x.shape[2], x.shape[1])


def _unflattened(x: Expr, shape: Sequence[int]) -> Expr:
    n, c, h, w = shape
    return _rows(x).reshape((h, w, n, c)).transpose(2, 3, 0, 1)


def _rows(x: Expr) -> Expr:
    """A flat image with its channels last, as it lies in memory."""
    return x.transpose(0, 2, 3, 1)


def _image(rows: Expr, height: int, channels: int) -> Expr:
    """The flat image whose memory is given."""
    return rows.reshape((1, height, -1, channels)).transpose(0, 3, 1, 2)


def _columns(x: Expr, phase: int, stride: int, batch: int) -> Expr:
    """The columns `phase`, `phase + stride`, ... of a flat image."""
    _, channels, height, row = x.shape
    parted = _rows(x).reshape((height, row // batch // stride, stride, batch * channels))
    return _image(parted.slice(2, phase, phase + 1), height, channels)


def _pixels(x: Expr, out: Sequence[int], kernel: Sequence[int], run: int) -> list[Expr]:
    """What windows side by side see at each of their places, in raster order."""
    parted = _rows(x).reshape((out[0], kernel[0], out[1], kernel[1], run))
    lines = [parted.slice(1, i, i + 1) for i in range(kernel[0])]
    return [line.slice(3, j, j + 1) for line in lines for j in range(kernel[1])]
