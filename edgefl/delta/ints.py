# SPDX-License-Identifier: Apache-2.0
"""Section kinds 2 and 5: small signed integers times a step, for every parameter or for a seeded subset.

Kind 2 has one stream: the integers, two's complement, 8 bits or two of 4 bits per byte, the first one low.
Kind 5 has two: the 8-byte seed, and the integers of the positions that the seed chooses. Positions cost
nothing, and no index tells anything about the data, which is what secure aggregation asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from edgefl.delta import bits
from edgefl.delta.bits import Array, Ints
from edgefl.delta.coders import STORED, Stream, smallest
from edgefl.delta.grid import Grid
from edgefl.delta.selection import CHUNK
from edgefl.delta.table import Coded, Section
from edgefl.errors import DeltaIndex, DeltaSection
from edgefl.parameters import Vector

DENSE, SUBSET = 2, 5
DENSE_STREAMS = ("integers",)
SUBSET_STREAMS = ("seed", "integers")
WIDTHS = (4, 8)
SEED_BYTES = 8

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_WORD = 1 << 64

Read = Callable[[int, int], bytes]


def largest(width: int) -> int:
    """The largest integer of a width; the smallest is its negative, so both signs reach as far."""
    return (1 << width - 1) - 1


def encode_dense(start: int, integers: Array, width: int, step: float, coders: Collection[str]) -> Coded:
    """A section of all parameters from `start` on."""
    section = Section(DENSE, 0, width, start, len(integers), len(integers), Grid(step, step, 0.0))
    return Coded(section, (smallest(_pack(integers, width), coders),))


def decode_dense(section: Section, read: Read) -> tuple[Ints, Vector]:
    """All positions, and values."""
    if section.count != section.length:
        raise DeltaSection(f"dense section of {section.length} parameters carries {section.count} values")
    values = _values(section, lambda size: read(0, size))
    return np.arange(section.start, section.start + section.length), values


def encode_subset(
    start: int, length: int, seed: int, integers: Array, width: int, step: float, coders: Collection[str]
) -> Coded:
    """A section of the parameters that `subset(seed, length, len(integers))` names."""
    section = Section(SUBSET, 0, width, start, length, len(integers), Grid(step, step, 0.0))
    streams = (Stream(STORED, seed.to_bytes(SEED_BYTES, "little")), smallest(_pack(integers, width), coders))
    return Coded(section, streams)


def decode_subset(section: Section, read: Read) -> tuple[Ints, Vector]:
    """The positions that the seed chooses, and values."""
    seed = int.from_bytes(read(0, SEED_BYTES), "little")
    values = _values(section, lambda size: read(1, size))
    indices = subset(seed, section.length, section.count)
    indices += section.start
    return indices, values


def subset(seed: int, length: int, count: int) -> Ints:
    """Ascending positions of the `count` smallest SplitMix64 outputs among the first `length`; ties go low.

    Output i is the mix of `seed + (i + 1) * 0x9E3779B97F4A7C15` modulo 2**64.
    """
    share = (count + 8 * count**0.5 + 16) / length
    found, keys = _below(seed, length, min(int(share * _WORD), _WORD - 1))
    if len(found) < count:
        found, keys = _below(seed, length, _WORD - 1)
    if len(found) > count:
        last = np.partition(keys, count - 1)[count - 1]
        keep = keys < last
        keep[np.flatnonzero(keys == last)[: count - np.count_nonzero(keep)]] = True
        found = found[keep]
    return found


def _below(seed: int, length: int, bound: int) -> tuple[Ints, npt.NDArray[np.uint64]]:
    found, keys = [], []
    for start in range(0, length, CHUNK):
        key = _mix(seed, start, min(CHUNK, length - start))
        hits = np.flatnonzero(key <= np.uint64(bound))
        found.append(hits + start)
        keys.append(key[hits])
    return np.concatenate(found), np.concatenate(keys)


def _mix(seed: int, start: int, count: int) -> npt.NDArray[np.uint64]:
    key = np.arange(1, count + 1, dtype=np.uint64)
    key *= np.uint64(_GOLDEN)
    key += np.uint64((seed + start * _GOLDEN) % _WORD)
    key ^= key >> np.uint64(30)
    key *= _FIRST
    key ^= key >> np.uint64(27)
    key *= _SECOND
    key ^= key >> np.uint64(31)
    return key


def _pack(integers: Array, width: int) -> bytes:
    if width == 8:
        return integers.astype(np.int8).tobytes()
    return bits.pack_plane(integers.astype(np.int8).view(np.uint8) & 15, 4)


def _values(section: Section, read: Callable[[int], bytes]) -> Vector:
    if section.mode or section.width not in WIDTHS or section.escapes:
        raise DeltaSection(
            f"integer section with mode {section.mode}, width {section.width} and {section.escapes} escapes, "
            f"allowed are mode 0, width {' or '.join(map(str, WIDTHS))} and no escapes"
        )
    data = read(bits.packed_size(section.width * section.count))
    return scaled(_unpack(data, section), section.grid.step)


def _unpack(data: bytes, section: Section) -> Array:
    if section.width == 8:
        return np.frombuffer(data, np.int8)
    if not bits.padding_is_zero(data, 4 * section.count):
        raise DeltaIndex("the bits after the last integer are not zero")
    nibbles = bits.unpack_plane(data, 4, section.count).view(np.int8)
    return (nibbles ^ 8) - np.int8(8)


def scaled(integers: Array, step: float) -> Vector:
    """`integers * step` in float64, rounded once to float32."""
    values: Vector = (integers * np.float64(step)).astype(np.float32)
    return values
