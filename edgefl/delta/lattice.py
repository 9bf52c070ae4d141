# SPDX-License-Identifier: Apache-2.0
"""How a model moves: sums of whole multiples of powers of two, exact in any order and on any machine.

A published version is `start + moved`: the parameters the rounds began with, and the sum of all steps
published since. Every step is a vector of integers times a power of two, and float64 adds those without ever
rounding. So it makes no difference whether a device adds the steps of eight versions one by one, their sum
in one frame, or the sum of all since the start: it holds the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator

import numpy as np
import numpy.typing as npt

from edgefl.delta import frame as frames
from edgefl.delta import sparse
from edgefl.delta.codec import SparseDelta, decode
from edgefl.delta.frame import Header, Limits
from edgefl.delta.grid import Grid
from edgefl.errors import DeltaOption, DeltaSchema, DeltaTooLarge, DeltaTruncated
from edgefl.parameters import Vector

Doubles = npt.NDArray[np.float64]

MAX_FRAMES = 64
"""Most frames that say together how a model moved."""

EXACT = 1 << 53
"""Whole numbers below this are exact in float64."""

_TINY = float(np.finfo(np.float32).tiny)
# A decoder rounds to float32, which holds whole numbers up to here.
_LARGEST = 1 << 24
_COARSER = 1 << 20
_CODERS = ("stored", "deflate")
_FINGERPRINT_BYTES = 16


def weights(start: Vector, moved: Doubles) -> Vector:
    """The parameters after a move, float32 of shape `(d,)`.

    What is too small for float32's full precision becomes 0, because some engines treat it so and others
    do not.
    """
    with np.errstate(over="ignore", under="ignore"):
        made: Vector = (start + moved).astype(np.float32)
    made[np.abs(made) < _TINY] = 0
    return made


def fingerprint(vector: Vector) -> str:
    """BLAKE2b-128 of a float32 vector's little-endian bytes, 32 hexadecimal digits."""
    data = np.ascontiguousarray(vector, "<f4")
    return hashlib.blake2b(data.data, digest_size=_FINGERPRINT_BYTES).hexdigest()


def encode_moves(moves: Doubles, unit: float, *, schema_id: bytes, base_version: int) -> bytes:
    """Frames whose values add up to the moves, bit for bit; more than one where float32 is too short.

    Args:
        moves: whole multiples of the unit, shape `(d,)`.
        unit: a power of two.
        base_version: version they start from.

    Raises:
        DeltaOption: a move is no multiple of the unit, or too large a one.
    """
    multiples = moves / unit
    largest = float(np.abs(multiples).max(initial=0.0))
    if not largest < EXACT or not np.array_equal(multiples, np.rint(multiples)):
        raise DeltaOption(f"moves up to {largest:g} units of {unit:g}, allowed are whole numbers below 2**53")
    if largest < _LARGEST:
        return _encode(multiples, unit, schema_id, base_version)
    coarse = np.rint(multiples / _COARSER)
    above = encode_moves(
        coarse * (unit * _COARSER), unit * _COARSER, schema_id=schema_id, base_version=base_version
    )
    return above + _encode(multiples - coarse * _COARSER, unit, schema_id, base_version)


def decode_moves(
    body: bytes, *, schema_id: bytes, size: int, versions: Container[int]
) -> Iterator[SparseDelta]:
    """The updates in one or more frames that follow each other without anything between, one at a time.

    Few bytes may stand for many values; whoever adds each update up before the next needs memory for one.

    Args:
        versions: base versions that may occur.

    Raises:
        DeltaError: its subclass for the first thing found wrong; no body at all is `DeltaTruncated`.
    """
    limits = Limits(schema_id, size, versions=versions, max_bytes=len(body))
    for frame in split_frames(body):
        yield decode(frame, limits)


def split_frames(body: bytes) -> Iterator[bytes]:
    """The frames a body consists of, by the lengths they declare.

    Raises:
        DeltaTruncated: it ends inside a frame.
        DeltaTooLarge: there are more than `MAX_FRAMES`.
    """
    at = count = 0
    while at < len(body) or not count:
        if len(body) - at < frames.SMALLEST_FRAME:
            raise DeltaTruncated(f"{len(body) - at} bytes at byte {at}, a frame has {frames.SMALLEST_FRAME}")
        if (count := count + 1) > MAX_FRAMES:
            raise DeltaTooLarge(f"more than {MAX_FRAMES} frames")
        length = frames.HEADER.unpack_from(body, at)[-1]
        if not frames.SMALLEST_FRAME <= length <= len(body) - at:
            raise DeltaTruncated(f"a frame at byte {at} declares {length} bytes, {len(body) - at} are left")
        yield body[at : at + length]
        at += length


def _encode(multiples: Doubles, unit: float, schema_id: bytes, base_version: int) -> bytes:
    if len(schema_id) != 8:
        raise DeltaSchema(f"schema id of {len(schema_id)} bytes, expected 8")
    header = Header(schema_id, base_version, frames.COMPACT, {})
    indices = np.flatnonzero(multiples)
    if not len(indices):
        return frames.pack(header, ())
    whole = multiples[indices].astype(np.int32)
    # Readers without zstd must be able to follow, and all are served the same bytes.
    coded = sparse.encode(
        0, len(multiples), indices, whole < 0, np.abs(whole) - 1, Grid(unit, unit, 0.0),
        coders=_CODERS, thorough=True,
    )  # fmt: skip
    return frames.pack(header, (coded,))
