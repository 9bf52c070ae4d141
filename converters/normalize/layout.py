# SPDX-License-Identifier: Apache-2.0
"""Emitting data movement: nothing where nothing moves, composed with what came before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgefl.converters.builder import GraphBuilder
from edgefl.converters.normalize.registry import axes_constant
from edgefl.graph.model import Node

_FROM_START = -(1 << 62)  # the `end` of a Slice that walks backwards through index 0


def reshape(b: GraphBuilder, x: str, shape: Sequence[int]) -> str:
    """`x` in another shape of the same size."""
    producer = b.producer(x)
    if producer is not None and producer.op == "Reshape":
        x = producer.inputs[0]
    if b.shape(x) == tuple(shape):
        return x
    if not all(shape):
        return b.add("Reshape", x, axes_constant(b, shape), allowzero=1)  # else a 0 would mean: as before
    return b.add("Reshape", x, axes_constant(b, shape))


def transpose(b: GraphBuilder, x: str, perm: Sequence[int]) -> str:
    """`x` with axes permuted; one that only moves axes of size 1 is a reshape."""
    perm = tuple(int(p) for p in perm)
    producer = b.producer(x)
    if producer is not None and producer.op == "Transpose":
        x, perm = producer.inputs[0], tuple(permutation(producer)[p] for p in perm)
    shape = b.shape(x)
    moved = [p for p in perm if shape[p] != 1]
    if moved == sorted(moved):
        return reshape(b, x, [shape[p] for p in perm])
    return b.add("Transpose", x, perm=perm)


def permutation(node: Node) -> tuple[int, ...]:
    """The `perm` of a Transpose emitted by `transpose`."""
    perm = node.attributes["perm"]
    assert isinstance(perm, tuple)
    return tuple(int(p) for p in perm)


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `perm`."""
    return tuple(int(i) for i in np.argsort(perm))


def unit_axes(old: Sequence[int], new: Sequence[int]) -> list[int | None] | None:
    """For each axis of `old` that of `new` it is, None for size 1; None if more than such axes differ."""
    kept = [axis for axis, n in enumerate(new) if n != 1]
    if [n for n in old if n != 1] != [new[axis] for axis in kept]:
        return None
    rest = iter(kept)
    return [next(rest) if n != 1 else None for n in old]


def expand(b: GraphBuilder, x: str, shape: Sequence[int]) -> str:
    """`x` broadcast to `shape`."""
    return x if b.shape(x) == tuple(shape) else b.add("Expand", x, axes_constant(b, shape))


def cast(b: GraphBuilder, x: str, dtype: npt.DTypeLike) -> str:
    """`x` as another element type."""
    return x if b.type(x).dtype == dtype else b.add("Cast", x, to=onnx_code(np.dtype(dtype)))


def onnx_code(dtype: np.dtype[np.generic]) -> int:
    """ONNX's TensorProto.DataType of an element type."""
    names = (
        "float32",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "",
        "bool",
        "float16",
        "float64",
    )
    return {name: code for code, name in enumerate(names, 1)}[dtype.name]


def cut(b: GraphBuilder, x: str, ranges: Mapping[int, tuple[int, int, int]]) -> str:
    """`x[start:stop:step]` along each given axis, Python's rules; all indices become explicit."""
    shape = b.shape(x)
    plan = {axis: slice(*triple).indices(shape[axis]) for axis, triple in sorted(ranges.items())}
    plan = {axis: triple for axis, triple in plan.items() if triple != (0, shape[axis], 1)}
    if not plan:
        return x
    starts, stops, steps = zip(*plan.values(), strict=True)
    stops = tuple(stop if stop >= 0 else _FROM_START for stop in stops)
    return b.add("Slice", x, *(axes_constant(b, v) for v in (starts, stops, tuple(plan), steps)))


def take(b: GraphBuilder, x: str, axis: int, start: int, stop: int) -> str:
    """`x[start:stop]` along one axis."""
    return cut(b, x, {axis: (start, stop, 1)})


def pad(b: GraphBuilder, x: str, before: Sequence[int], after: Sequence[int], value: str = "") -> str:
    """`x` with a constant around it (0 by default); negative amounts cut off."""
    shape = b.shape(x)
    kept = {
        i: (max(0, -lo), shape[i] - max(0, -hi), 1)
        for i, (lo, hi) in enumerate(zip(before, after, strict=True))
    }
    x = cut(b, x, kept)
    amounts = [max(0, n) for n in (*before, *after)]
    if not any(amounts):
        return x
    value = value or b.constant(np.zeros((), b.type(x).dtype))
    return b.add("Pad", x, axes_constant(b, amounts), value, mode="constant")


def concat(b: GraphBuilder, tensors: Sequence[str], axis: int) -> str:
    """Tensors joined along an axis; empty ones are left out."""
    filled = [t for t in tensors if b.shape(t)[axis]] or [*tensors][:1]
    return filled[0] if len(filled) == 1 else b.add("Concat", *filled, axis=axis)


def select(b: GraphBuilder, x: str, axis: int, index: npt.NDArray[np.int64]) -> str:
    """`numpy.take(x, index, axis)` for a known index; runs and single entries become slices."""
    shape = b.shape(x)
    index = np.where(index < 0, index + shape[axis], index).astype(np.int64)
    flat = index.ravel()
    steps = set(np.diff(flat).tolist()) or {1}
    if len(flat) == 0 or len(steps) > 1 or not steps <= {1, -1}:
        return b.add("Gather", x, b.constant(index), axis=axis)
    step = steps.pop()
    stop = int(flat[-1]) + step
    part = cut(b, x, {axis: (int(flat[0]), stop if stop >= 0 else _FROM_START, step)})
    return reshape(b, part, (*shape[:axis], *index.shape, *shape[axis + 1 :]))
