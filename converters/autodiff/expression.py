# SPDX-License-Identifier: Apache-2.0
"""Tensors of a builder with arithmetic: `dy * (1 - y * y)` emits three nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.converters.builder import GraphBuilder
from edgefl.graph.model import Array, Attribute

_BROADCAST_RANK = 4  # tflite-runtime aborts when it has to broadcast tensors of a higher rank


@dataclass(frozen=True)
class Expr:
    """A tensor in a builder. Operators emit nodes; Python numbers take the tensor's own dtype."""

    builder: GraphBuilder
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.builder.type(self.name).shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.builder.type(self.name).dtype

    @property
    def value(self) -> Array | None:
        """The value where it is known when the graph is built."""
        return self.builder.value(self.name)

    def constant(self, value: Array | float | int | bool, dtype: object = None) -> Expr:
        """A constant in the same builder, of this tensor's dtype unless told."""
        return Expr(self.builder, self.builder.constant(value, self.dtype if dtype is None else dtype))

    def apply(self, op: str, *others: Expr, **attributes: Attribute) -> Expr:
        """The operator with this tensor as first input."""
        inputs = (self.name, *(t.name for t in others))
        return Expr(self.builder, self.builder.add(op, *inputs, **attributes))  # type: ignore[arg-type]

    # -- arithmetic

    def __add__(self, other: Expr | float) -> Expr:
        return self._binary("Add", other)

    def __sub__(self, other: Expr | float) -> Expr:
        return self._binary("Sub", other)

    def __mul__(self, other: Expr | float) -> Expr:
        return self if isinstance(other, (int, float)) and other == 1 else self._binary("Mul", other)

    def __truediv__(self, other: Expr | float) -> Expr:
        return self if isinstance(other, (int, float)) and other == 1 else self._binary("Div", other)

    def __radd__(self, other: float) -> Expr:
        return self.constant(other)._binary("Add", self)

    def __rsub__(self, other: float) -> Expr:
        return self.constant(other)._binary("Sub", self)

    def __rmul__(self, other: float) -> Expr:
        return self * other

    def __rtruediv__(self, other: float) -> Expr:
        return self.apply("Reciprocal") if other == 1 else self.constant(other)._binary("Div", self)

    def __neg__(self) -> Expr:
        return self.apply("Neg")

    def __pow__(self, other: Expr | float) -> Expr:
        return self._binary("Pow", other)

    def __matmul__(self, other: Expr) -> Expr:
        return self.apply("MatMul", other)

    # -- comparisons give bool tensors

    def equals(self, other: Expr | float) -> Expr:
        return self._binary("Equal", other)

    def greater(self, other: Expr | float) -> Expr:
        return self._binary("Greater", other)

    def less(self, other: Expr | float) -> Expr:
        return self._binary("Less", other)

    def where(self, yes: Expr, no: Expr | float) -> Expr:
        """`yes` where this bool tensor holds, else `no`."""
        other = no if isinstance(no, Expr) else yes.constant(no)
        return self._broadcast("Where", yes, other)

    def keep(self, value: Expr) -> Expr:
        """`value` where this bool tensor holds, else zero, whatever `value` is there."""
        return self.where(value, 0)

    # -- element-wise functions

    def exp(self) -> Expr:
        return self.apply("Exp")

    def log(self) -> Expr:
        return self.apply("Log")

    def sqrt(self) -> Expr:
        return self.apply("Sqrt")

    def sigmoid(self) -> Expr:
        return self.apply("Sigmoid")

    def cast(self, dtype: np.dtype[Any] | type) -> Expr:
        target = np.dtype(dtype)
        return self if target == self.dtype else self.apply("Cast", to=onnx_type(target))

    # -- shape

    def sum(self, axes: Sequence[int] | None = None, keepdims: bool = False) -> Expr:
        """Sum over the axes (all when None)."""
        chosen = range(self.rank) if axes is None else axes
        if not list(chosen):
            return self
        return self.apply("ReduceSum", self._axes(chosen), keepdims=int(keepdims))

    def sum_to(self, shape: Sequence[int]) -> Expr:
        """Sum out what broadcasting from `shape` to this tensor's shape repeated."""
        if tuple(shape) == self.shape:
            return self
        lead = self.rank - len(shape)
        axes = [i for i in range(self.rank) if i < lead or (shape[i - lead] == 1 and self.shape[i] != 1)]
        # OpenVINO 2026.4 takes a reshape past a sum that keeps its axes, and loses axes of size 1 on the way.
        return self.sum(axes, keepdims=not self.builder.channels_last).reshape(shape)

    def reshape(self, shape: Sequence[int]) -> Expr:
        if tuple(shape) == self.shape:
            return self
        return self.apply("Reshape", self.constant(np.array(shape, np.int64), np.int64))

    def transpose(self, *permutation: int) -> Expr:
        if permutation == tuple(range(self.rank)):
            return self
        return self.apply("Transpose", perm=permutation)

    def swap_last(self) -> Expr:
        """Transpose the last two axes."""
        return self.transpose(*range(self.rank - 2), self.rank - 1, self.rank - 2)

    def expand(self, shape: Sequence[int]) -> Expr:
        """Broadcast to `shape`."""
        if tuple(shape) == self.shape:
            return self
        return self.apply("Expand", self.constant(np.array(shape, np.int64), np.int64))

    def slice(self, axis: int, start: int, stop: int, step: int = 1) -> Expr:
        """`self[..., start:stop:step, ...]` along one axis; a reversed slice that reaches 0 has stop -1."""
        return self.slices([axis], [start], [stop], [step])

    def slices(
        self, axes: Sequence[int], starts: Sequence[int], stops: Sequence[int], steps: Sequence[int]
    ) -> Expr:
        """As `slice`, along several axes; those that would be left whole are left out."""
        rows = [
            (start, stop if stop >= 0 else stop - self.shape[axis], axis, step)
            for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True)
            if not (start == 0 and step == 1 and stop >= self.shape[axis])
        ]
        if not rows:
            return self
        return self.apply("Slice", *(self._axes(column) for column in zip(*rows, strict=True)))

    def reverse(self, axis: int) -> Expr:
        """The elements along one axis in opposite order."""
        return self if self.shape[axis] < 2 else self.slice(axis, self.shape[axis] - 1, -1, -1)

    def pad(self, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Expr:
        """Pad each axis before and after."""
        if not any(before or after for before, after in widths):
            return self
        pads = [before for before, _ in widths] + [after for _, after in widths]
        return self.apply("Pad", self._axes(pads), self.constant(value), mode="constant")

    def pad_axis(self, axis: int, before: int, after: int) -> Expr:
        return self.pad([(before, after) if i == axis else (0, 0) for i in range(self.rank)])

    # -- inside

    def _axes(self, values: Sequence[int]) -> Expr:
        return self.constant(np.array(list(values), np.int64), np.int64)

    def _binary(self, op: str, other: Expr | float) -> Expr:
        return self._broadcast(op, other if isinstance(other, Expr) else self.constant(other))

    def _broadcast(self, op: str, *others: Expr) -> Expr:
        tensors = (self, *others)
        shapes = [t.shape for t in tensors]
        if len(set(shapes)) == 1 or max(map(len, shapes)) <= _BROADCAST_RANK:
            return self.apply(op, *others)
        full = np.broadcast_shapes(*shapes)
        merged = _merged_shapes(shapes, full)
        if len(merged[0]) <= _BROADCAST_RANK:
            first, *rest = (t.reshape(s) for t, s in zip(tensors, merged, strict=True))
        else:
            first, *rest = (t.expand(full) for t in tensors)
        return first.apply(op, *rest).reshape(full)


def concat(tensors: Sequence[Expr], axis: int) -> Expr:
    """The tensors joined along an axis."""
    first, *rest = tensors
    return first.apply("Concat", *rest, axis=axis) if rest else first


def add_all(tensors: Sequence[Expr]) -> Expr:
    """The sum of one or more tensors of one shape."""
    total, *rest = tensors
    for tensor in rest:
        total = total + tensor
    return total


def zeros_like(tensor: Expr, shape: Sequence[int] | None = None) -> Expr:
    """Constant zeros of the tensor's dtype and, unless told, its shape."""
    return tensor.constant(np.zeros(tensor.shape if shape is None else tuple(shape), tensor.dtype))


def onnx_type(dtype: np.dtype[Any]) -> int:
    """The ONNX element type number of a dtype."""
    return _ONNX_TYPES[dtype.name]


_ONNX_TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7,
    "bool": 9, "float16": 10, "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip


def _merged_shapes(shapes: Sequence[tuple[int, ...]], full: tuple[int, ...]) -> list[list[int]]:
    """Shapes with neighbouring axes joined where every tensor either has them all or broadcasts them all."""
    aligned = [(1,) * (len(full) - len(s)) + s for s in shapes]
    merged: list[list[int]] = [[] for _ in shapes]
    previous: tuple[bool, ...] | None = None
    for axis, size in enumerate(full):
        if size == 1:
            continue
        pattern = tuple(s[axis] == size for s in aligned)
        for target, source in zip(merged, aligned, strict=True):
            if pattern == previous:
                target[-1] *= source[axis]
            else:
                target.append(source[axis])
        previous = pattern
    return merged
