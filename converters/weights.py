# SPDX-License-Identifier: Apache-2.0
"""Frozen weights rounded to integers with scales, so that they can be stored in eight or four bits.

Weights are rounded once, before differentiation, and every target computes with the same float32 values;
`packed` recovers the integers from those values exactly, in whatever orientation a graph holds them. That
works because scales have 16 significant bits and integers at most 7: their products are exact in float32.

Int8 has one scale per row of one axis, symmetric; int4 one per block of 8 to 64 neighbours along the last
axis, as QLoRA does (Dettmers et al. 2023, with a uniform grid in place of NF4).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgefl.errors import ConversionError
from edgefl.graph import Array, Graph, Node

BITS = (8, 4)
MIN_SIZE = 1024
"""Elements; what is smaller stays in float32: its scale and operator would outweigh it."""

_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Gather"})
_TURNS = frozenset({"Transpose", "Reshape"})
_BLOCKS = (32, 64, 16, 48, 24, 40, 56, 8)
_SHORT = 16  # elements of a row below which its scale takes about what its integers save
_ORIENTATIONS = 4  # the most dimensions whose transposes are tried


@dataclass(frozen=True, eq=False)
class Packed:
    """A float32 array as integers and scales.

    The array is `levels * scale` along `axis`, reshaped to `shape`, its axes then permuted by `perm`.

    Attributes:
        levels: int8, in [-127, 127] or [-7, 7].
        scale: float32, one for each index of `axis`.
    """

    levels: Array
    scale: Array
    axis: int
    shape: tuple[int, ...]
    perm: tuple[int, ...]
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes of integers and scales."""
        return -(-self.levels.size * self.bits // 8) + self.scale.nbytes

    @property
    def value(self) -> Array:
        """The float32 array."""
        scale = self.scale.reshape([-1 if a == self.axis else 1 for a in range(self.levels.ndim)])
        value = (self.levels * scale).astype(np.float32).reshape(self.shape)
        return np.ascontiguousarray(value.transpose(self.perm))


def check_bits(bits: int | None) -> None:
    """Raises ConversionError for a number of bits there is no format for."""
    if bits is not None and bits not in BITS:
        raise ConversionError(f"frozen weights of {bits} bits; allowed are {' and '.join(map(str, BITS))}")


def round_weights(graph: Graph, bits: int) -> Graph:
    """The graph with the large weights of its products and tables rounded to what `packed` can store."""
    readers = graph.consumers()
    weights = {name for name in graph.constants if _feeds_product(readers, name)}
    constants = {
        name: _rounded(value, bits) if name in weights and _is_weight(value) else value
        for name, value in graph.constants.items()
    }
    return replace(graph, constants=constants)


def has_weights(graph: Graph) -> bool:
    """Whether a graph's own constants hold something to round."""
    readers = graph.consumers()
    return any(_is_weight(v) and _feeds_product(readers, n) for n, v in graph.constants.items())


def packed(value: Array, bits: int) -> Packed | None:
    """The integers behind rounded weights; None for any other array."""
    if not _is_weight(value):
        return None
    blocks = _packed_blocks(value) if bits == 4 else None
    return blocks or _packed_rows(value)


def _is_weight(value: Array) -> bool:
    large = value.dtype == np.float32 and value.ndim >= 2 and value.size >= MIN_SIZE
    return large and bool(np.isfinite(value).all())


def _feeds_product(readers: Mapping[str, list[Node]], name: str) -> bool:
    """Whether a tensor, perhaps turned, is an operand of a product or a table that is looked up."""
    return any(
        node.op in _PRODUCTS or (node.op in _TURNS and _feeds_product(readers, node.outputs[0]))
        for node in readers.get(name, [])
    )


def _rounded(value: Array, bits: int) -> Array:
    block = _block(value.shape[-1])
    if bits == 4 and block:
        return _to_grid(value.reshape(-1, block), 0, 7).reshape(value.shape)
    axes = list(dict.fromkeys((0, value.ndim - 1)))
    long = [axis for axis in axes if value.size >= _SHORT * value.shape[axis]]
    choices = [_to_grid(value, axis, 127) for axis in long or axes]
    return min(choices, key=lambda made: float(np.square(made - value).sum()))


def _to_grid(value: Array, axis: int, limit: int) -> Array:
    """The nearest multiples, up to `limit`, of a scale per index of `axis`."""
    scale = _scale(value, axis, limit, short=True)
    return (np.rint(value / scale) * scale).astype(np.float32)


def _scale(value: Array, axis: int, limit: int, *, short: bool) -> Array:
    others = tuple(a for a in range(value.ndim) if a != axis)
    most = np.abs(value).max(axis=others, keepdims=True)
    scale = np.where(most > 0, most / np.float32(limit), np.float32(1)).astype(np.float32)
    if not short:
        return scale
    # Sixteen significant bits, rounded up so that the largest weight stays at the limit.
    return ((scale.view(np.uint32) + np.uint32(0xFF)) & np.uint32(0xFFFFFF00)).view(np.float32)


def _block(length: int) -> int:
    """Neighbours that share a scale; 0 for lengths that no block size divides, which take eight bits."""
    return next((block for block in _BLOCKS if length % block == 0), 0)


def _levels(value: Array, axis: int, limit: int) -> tuple[Array, Array] | None:
    """Integers and scales with exactly this product, or None."""
    scale = _scale(value, axis, limit, short=False)
    if np.any(scale.view(np.uint32) & np.uint32(0xFF)):
        return None
    levels = np.rint(value / scale)
    if np.abs(levels).max() > limit or not np.array_equal((levels * scale).astype(np.float32), value):
        return None
    return levels.astype(np.int8), scale.ravel()


def _packed_rows(value: Array) -> Packed | None:
    for axis in range(value.ndim):
        found = _levels(value, axis, 127)
        if found is not None:
            return Packed(*found, axis, value.shape, tuple(range(value.ndim)), 8)
    return None


def _packed_blocks(value: Array) -> Packed | None:
    """The orientation in which the array was rounded is found by trying: wrong ones give no exact product."""
    if value.ndim > _ORIENTATIONS:
        return None
    for perm in itertools.permutations(range(value.ndim)):
        turned = value.transpose(perm)
        block = _block(turned.shape[-1])
        found = _levels(turned.reshape(-1, block), 0, 7) if block else None
        if found is not None:
            back = tuple(int(axis) for axis in np.argsort(perm))
            return Packed(*found, 0, turned.shape, back, 4)
    return None
