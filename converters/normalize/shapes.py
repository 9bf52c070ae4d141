# SPDX-License-Identifier: Apache-2.0
"""Rewrites of operators that move data or ask about shapes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgefl.converters.builder import STOP_GRADIENT, GraphBuilder
from edgefl.converters.normalize.layout import (
    cast,
    concat,
    cut,
    expand,
    pad,
    reshape,
    select,
    take,
    transpose,
)
from edgefl.converters.normalize.registry import (
    axes_constant,
    given,
    integer,
    integers,
    keep,
    like,
    rewrite,
    static,
    static_ints,
    text,
)
from edgefl.errors import UnsupportedOperator
from edgefl.graph.model import Node


@rewrite("Identity", "Dropout")
def identity(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    """Dropout is off: the output is the input, and the mask keeps everything. A stop of gradients stays."""
    if node.op == "Identity" and node.name.startswith(STOP_GRADIENT):
        return (b.add("Identity", inputs[0]),)
    if len(node.outputs) == 1:
        return (inputs[0],)
    return inputs[0], expand(b, b.constant(np.asarray(True)), b.shape(inputs[0]))


@rewrite("Cast")
def cast_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    made = keep(b, node, inputs)
    assert isinstance(made, str)
    return inputs[0] if b.type(made) == b.type(inputs[0]) else made


@rewrite("CastLike")
def cast_like(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return cast(b, inputs[0], b.type(inputs[1]).dtype)


@rewrite("Shape")
def shape_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    shape = b.shape(inputs[0])
    return axes_constant(b, shape[integer(node, "start", 0) : integer(node, "end", len(shape))])


@rewrite("Size")
def size(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return b.constant(np.asarray(b.type(inputs[0]).size, np.int64))


@rewrite("Reshape")
def reshape_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    old, wanted = b.shape(inputs[0]), static_ints(b, node, inputs, 1)
    assert wanted is not None
    zero_is_zero = integer(node, "allowzero", 0)
    shape = [old[i] if n == 0 and not zero_is_zero else n for i, n in enumerate(wanted)]
    if -1 in shape:
        known = int(np.prod([n for n in shape if n != -1], dtype=np.int64))
        shape[shape.index(-1)] = b.type(inputs[0]).size // max(known, 1)
    if int(np.prod(shape, dtype=np.int64)) != b.type(inputs[0]).size:
        raise UnsupportedOperator(
            f"node {node}: cannot reshape {list(old)} to {list(wanted)}; is the batch size fixed?"
        )
    return reshape(b, inputs[0], shape)


@rewrite("Flatten")
def flatten(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    shape = b.shape(inputs[0])
    axis = integer(node, "axis", 1)
    axis += len(shape) if axis < 0 else 0
    rows = int(np.prod(shape[:axis], dtype=np.int64))
    return reshape(b, inputs[0], [rows, int(np.prod(shape[axis:], dtype=np.int64))])


@rewrite("Squeeze")
def squeeze(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    shape = b.shape(inputs[0])
    given_axes = static_ints(b, node, inputs, 1)
    axes = (
        [i for i, n in enumerate(shape) if n == 1]
        if given_axes is None
        else [a % len(shape) for a in given_axes]
    )
    return reshape(b, inputs[0], [n for i, n in enumerate(shape) if i not in axes])


@rewrite("Unsqueeze")
def unsqueeze(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    axes = static_ints(b, node, inputs, 1)
    assert axes is not None
    rank = len(b.shape(inputs[0])) + len(axes)
    rest = iter(b.shape(inputs[0]))
    new = {a % rank for a in axes}
    return reshape(b, inputs[0], [1 if i in new else next(rest) for i in range(rank)])


@rewrite("Transpose")
def transpose_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    rank = len(b.shape(inputs[0]))
    return transpose(b, inputs[0], integers(node, "perm", range(rank)[::-1]))


@rewrite("Expand")
def expand_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    wanted = static_ints(b, node, inputs, 1)
    assert wanted is not None
    return expand(b, inputs[0], np.broadcast_shapes(b.shape(inputs[0]), wanted))


@rewrite("Tile")
def tile(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Axes of size 1 are expanded, others joined to copies of themselves."""
    repeats = static_ints(b, node, inputs, 1)
    assert repeats is not None
    x = inputs[0]
    for axis, count in enumerate(repeats):
        if b.shape(x)[axis] != 1:
            x = concat(b, [x] * count, axis) if count else take(b, x, axis, 0, 0)
    ones = [count if n == 1 else n for n, count in zip(b.shape(x), repeats, strict=True)]
    return expand(b, x, ones)


@rewrite("Concat")
def concat_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    return concat(b, inputs, integer(node, "axis", 0) % len(b.shape(inputs[0])))


@rewrite("Split")
def split(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    axis = integer(node, "axis", 0) % len(b.shape(inputs[0]))
    total, parts = b.shape(inputs[0])[axis], len(node.outputs)
    size = -(-total // parts)
    sizes = static_ints(b, node, inputs, 1) or [min(size, total - i * size) for i in range(parts)]
    ends = np.cumsum(sizes)
    return tuple(take(b, inputs[0], axis, int(end - n), int(end)) for n, end in zip(sizes, ends, strict=True))


@rewrite("Slice")
def slice_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    starts, ends, axes, steps = (static_ints(b, node, inputs, i) for i in (1, 2, 3, 4))
    assert starts is not None
    assert ends is not None
    rank = len(b.shape(inputs[0]))
    axes = axes if axes is not None else tuple(range(len(starts)))
    steps = steps if steps is not None else (1,) * len(starts)
    ranges = zip(axes, starts, ends, steps, strict=True)
    return cut(b, inputs[0], {axis % rank: (start, end, step) for axis, start, end, step in ranges})


@rewrite("ReverseSequence")
def reverse_sequence(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """The first `length` steps of each sequence backwards: a slice where those are all, else a Gather."""
    x, axis, lengths = inputs[0], integer(node, "time_axis", 0), static_ints(b, node, inputs, 1)
    assert lengths is not None
    steps = b.shape(x)[axis]
    if all(n == steps for n in lengths):
        return cut(b, x, {axis: (-1, -(1 << 62), -1)})
    first, second, *rest = b.shape(x)
    place = np.arange(first * second).reshape(first, second)
    place = place if axis == 0 else place.T
    for column, n in zip(place.T, lengths, strict=True):
        column[:n] = column[:n][::-1].copy()
    place = place if axis == 0 else place.T
    rows = select(b, reshape(b, x, (first * second, *rest)), 0, place.ravel())
    return reshape(b, rows, (first, second, *rest))


@rewrite("Gather")
def gather(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """A known index becomes a slice where it is one; an embedding's lookup stays."""
    axis = integer(node, "axis", 0) % len(b.shape(inputs[0]))
    index = b.value(inputs[1])
    if index is not None and b.value(inputs[0]) is None:
        return select(b, inputs[0], axis, index)
    return b.add("Gather", *inputs, axis=axis)


@rewrite("GatherND")
def gather_nd(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    """Known indices address the flattened leading axes: one Gather."""
    index = b.value(inputs[1])
    if index is None or integer(node, "batch_dims", 0):
        return keep(b, node, inputs)
    shape, depth = b.shape(inputs[0]), index.shape[-1]
    index = np.where(index < 0, index + np.asarray(shape[:depth]), index)
    flat = np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), shape[:depth])
    rows = reshape(b, inputs[0], [int(np.prod(shape[:depth])), *shape[depth:]])
    return select(b, rows, 0, np.asarray(flat, np.int64))


@rewrite("Pad")
def pad_(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """Constant padding of all axes; the other modes gather known indices, axis by axis."""
    rank = len(b.shape(inputs[0]))
    amounts, axes = static_ints(b, node, inputs, 1), static_ints(b, node, inputs, 3)
    assert amounts is not None
    axes = tuple(a % rank for a in axes) if axes is not None else tuple(range(rank))
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = amounts[i], amounts[i + len(axes)]
    mode = text(node, "mode", "constant")
    if mode == "constant":
        return pad(b, inputs[0], before, after, given(inputs, 2))
    x = inputs[0]
    for axis in axes:
        index = np.pad(np.arange(b.shape(x)[axis]), (before[axis], after[axis]), mode=mode)  # type: ignore[call-overload]
        x = select(b, x, axis, index)
    return x


@rewrite("DepthToSpace")
def depth_to_space(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    n, c, h, w = b.shape(inputs[0])
    s = integer(node, "blocksize", 1)
    columns_first = text(node, "mode", "DCR") == "CRD"
    shape = (n, c // (s * s), s, s, h, w) if columns_first else (n, s, s, c // (s * s), h, w)
    perm = (0, 1, 4, 2, 5, 3) if columns_first else (0, 3, 4, 1, 5, 2)
    return reshape(b, transpose(b, reshape(b, inputs[0], shape), perm), (n, c // (s * s), h * s, w * s))


@rewrite("SpaceToDepth")
def space_to_depth(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    n, c, h, w = b.shape(inputs[0])
    s = integer(node, "blocksize", 1)
    blocks = reshape(b, inputs[0], (n, c, h // s, s, w // s, s))
    return reshape(b, transpose(b, blocks, (0, 3, 5, 1, 2, 4)), (n, c * s * s, h // s, w // s))


@rewrite("Trilu")
def trilu(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    offset = static_ints(b, node, inputs, 1) or (0,)
    upper = integer(node, "upper", 1)
    mask = np.ones(b.shape(inputs[0])[-2:], bool)
    mask = np.triu(mask, offset[0]) if upper else np.tril(mask, offset[0])
    return b.add("Where", b.constant(mask), inputs[0], like(b, inputs[0], 0))


@rewrite("OneHot")
def one_hot(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """`where(index == arange(depth), on, off)`, negative indices counted from the end."""
    depth = static_ints(b, node, inputs, 1)
    assert depth is not None
    shape, kind = b.shape(inputs[0]), b.type(inputs[0]).dtype
    axis = integer(node, "axis", -1) % (len(shape) + 1)
    index = reshape(b, inputs[0], (*shape[:axis], 1, *shape[axis:]))
    index = b.add(
        "Where", b.add("Less", index, like(b, index, 0)), b.add("Add", index, like(b, index, depth[0])), index
    )
    classes = np.arange(depth[0]).astype(kind).reshape((-1,) + (1,) * (len(shape) - axis))
    off, on = (reshape(b, take(b, inputs[2], 0, i, i + 1), ()) for i in (0, 1))
    return b.add("Where", b.add("Equal", index, b.constant(classes)), on, off)


@rewrite("Range", "ConstantOfShape", "NonZero", "Unique")
def known_only(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    for i in range(len(inputs)):
        static(b, node, inputs, i)
    return keep(b, node, inputs)


@rewrite("Compress")
def compress(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str:
    """A known choice of elements, of the flattened tensor where there is no axis."""
    chosen = static(b, node, inputs, 1)
    assert chosen is not None
    x = inputs[0] if "axis" in node.attributes else reshape(b, inputs[0], (b.type(inputs[0]).size,))
    return select(b, x, integer(node, "axis", 0) % len(b.shape(x)), np.flatnonzero(chosen))


@rewrite("TopK", "Resize")
def known_extent(b: GraphBuilder, node: Node, inputs: Sequence[str]) -> str | tuple[str, ...]:
    for i in range(1, len(inputs)):
        static(b, node, inputs, i)
    return keep(b, node, inputs)
