# SPDX-License-Identifier: Apache-2.0
"""Vectors to frames and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgefl.delta import frame as frames
from edgefl.delta import modes, raw
from edgefl.delta.bits import Ints
from edgefl.delta.budget import fit
from edgefl.delta.coders import CODER_NAMES
from edgefl.delta.frame import Header, Limits
from edgefl.delta.modes import MODES, Outcome, Request, Runs
from edgefl.delta.sections import STREAM_COUNTS, decode_section
from edgefl.errors import DeltaOption, DeltaValue
from edgefl.parameters import Vector


@dataclass(frozen=True)
class Encoded:
    """A frame and what its decoder will see.

    Attributes:
        frame: the bytes to send.
        indices: ascending positions, int64 of shape `(n,)`.
        values: float32 of shape `(n,)`, bit for bit the decoder's; a residual subtracts these.
        size: parameters covered.
        nmse: expected squared error over the squared norm (`unbiased`; per tensor, the largest), else None.
    """

    frame: bytes
    indices: Ints
    values: Vector
    size: int
    nmse: float | None = None

    def dense(self) -> Vector:
        """The decoded update as a vector of shape `(size,)`."""
        return _dense(self)


@dataclass(frozen=True)
class SparseDelta:
    """A decoded update.

    Attributes:
        indices: strictly ascending positions, int64 of shape `(n,)`.
        values: finite float32 of shape `(n,)`.
        size: parameters covered.
        base_version: model version the update starts from.
        unbiased: whether its average over devices is the mean.
        meta: the sender's metadata; unverified, for metrics only.
    """

    indices: Ints
    values: Vector
    size: int
    base_version: int
    unbiased: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)

    def dense(self) -> Vector:
        """The update as a vector of shape `(size,)`."""
        return _dense(self)

    def add_to(self, total: np.ndarray[Any, Any], weight: float = 1.0) -> None:
        """Add `weight` times the update to a vector of shape `(size,)`, in its precision."""
        np.add.at(total, self.indices, self.values * total.dtype.type(weight))

    @property
    def norm(self) -> float:
        """Euclidean length."""
        values = self.values.astype(np.float64)
        return float(np.sqrt(values @ values))


def encode(
    vector: Vector,
    *,
    schema_id: bytes,
    base_version: int,
    density: float = 0.01,
    k: int | None = None,
    payload_bytes: int | None = None,
    mode: str = "topk",
    meta: Mapping[str, Any] | None = None,
    rng: np.random.Generator | int | None = None,
    nmse_limit: float | None = None,
    subset_seed: int | None = None,
    tensors: Runs = (),
    per_tensor: bool = False,
    whole_below: int = 0,
    coders: Collection[str] = CODER_NAMES,
    thorough: bool = False,
    compact: bool = True,
) -> Encoded:
    """Code a flat update.

    Args:
        vector: float32 of shape `(d,)`.
        schema_id: 8 bytes, see `edgefl.parameters.Schema.id`.
        base_version: model version the update starts from, unsigned 32 bits.
        density: share of the parameters to keep, in (0, 1]; `k` says it as a number instead, and
            `payload_bytes` as the longest frame allowed, which is then filled as well as it goes.
        mode: one of `MODES`. `topk` keeps the largest magnitudes and wants error feedback, `ternary` is the
            same with two values only, `unbiased` rounds at random and needs no state, `dense8`, `dense4`,
            `float16` and `float32` send every parameter, `subset` sends those that a seed chooses.
        meta: JSON object of at most 4096 bytes.
        rng: generator or seed for modes that round at random (default: fresh entropy).
        nmse_limit: guard of `unbiased`: D shrinks until the noise over the squared norm is at most this; five
            times the size of the cohort is sound.
        subset_seed: 64 bits that everyone in a round shares, for `subset`; the base version where None, so
            that every version moves other parameters.
        tensors: half-open ranges of the tensors, covering the vector in order.
        per_tensor: choose in every tensor by itself rather than among all parameters.
        whole_below: tensors of fewer parameters are sent whole, as float16.
        coders: names of the coders allowed; zstd is used where installed.
        thorough: spend more time on a smaller frame, for one that is made once and sent to many.
        compact: the short layout of the section table; without, the plain one.

    Raises:
        DeltaOption: an argument outside what is allowed, or a budget that nothing fits.
        NotFinite: NaN, infinity or a magnitude over 1e37 in the vector.
    """
    vector = _checked(vector)
    flags = frames.COMPACT if compact else 0
    header = Header(_checked_id(schema_id), _checked_version(base_version), flags, meta or {})
    request = Request(
        _count(vector.size, density, k),
        np.random.default_rng(rng),
        nmse_limit,
        _checked_seed(base_version if subset_seed is None else subset_seed),
        coders,
        thorough,
    )
    parts = _parts(vector.size, tensors, per_tensor, whole_below)
    if payload_bytes is None:
        return _encode(vector, mode, request, parts, header)
    seed = int(request.rng.integers(1 << 63))

    def attempt(count: int) -> Encoded:
        # The same draws for every attempt, so that the size depends on the count alone.
        again = replace(request, k=count, rng=np.random.default_rng(seed))
        return _encode(vector, mode, again, parts, header)

    return fit(attempt, lambda encoded: len(encoded.frame), vector.size, payload_bytes)


def decode(frame: bytes, limits: Limits) -> SparseDelta:
    """Check and decode a frame, in memory bounded by the limits.

    Raises:
        DeltaError: its subclass for the first thing found wrong.
    """
    header, sections = frames.parse(frame, limits, STREAM_COUNTS)
    parts = [decode_section(coded) for coded in sections]
    indices, values = parts[0] if len(parts) == 1 else _joined(parts)
    largest = np.abs(values).max(initial=np.float32(0))
    if not largest <= limits.max_magnitude:
        raise DeltaValue(f"a value has magnitude {largest}, at most {limits.max_magnitude} is allowed")
    unbiased = bool(header.flags & frames.UNBIASED)
    return SparseDelta(indices, values, limits.size, header.base_version, unbiased, header.meta)


@dataclass(frozen=True)
class _Part:
    """Runs of parameters that are chosen from together, or sent whole."""

    runs: tuple[tuple[int, int], ...]
    whole: bool = False


def _encode(vector: Vector, mode: str, request: Request, parts: Sequence[_Part], header: Header) -> Encoded:
    outcome = modes.joined([_outcome(vector, mode, request, part) for part in parts])
    data = frames.pack(replace(header, flags=header.flags | outcome.flags), outcome.sections)
    return Encoded(data, outcome.indices, outcome.values, vector.size, outcome.nmse)


def _outcome(vector: Vector, mode: str, request: Request, part: _Part) -> Outcome:
    if part.whole:
        return modes.whole(raw.HALF)(vector, part.runs, request)
    run, *more = part.runs
    if more:
        return _mode(mode)(_only(vector, part.runs), part.runs, request)
    piece = vector[slice(*run)]
    share = max(1, round(request.k * piece.size / max(vector.size, 1)))
    return _mode(mode)(piece, [(0, piece.size)], replace(request, k=share)).moved(run[0])


def _only(vector: Vector, runs: Runs) -> Vector:
    """The vector with zeros outside the runs."""
    kept = np.zeros_like(vector)
    for start, stop in runs:
        kept[start:stop] = vector[start:stop]
    return kept


def _parts(size: int, tensors: Runs, per_tensor: bool, whole_below: int) -> list[_Part]:
    if not per_tensor and not whole_below:
        return [_Part(((0, size),))]
    ranges = [(start, stop) for start, stop in tensors if stop > start] or [(0, size)]
    edges = [0, *(stop for _, stop in ranges)]
    if edges[:-1] != [start for start, _ in ranges] or edges[-1] != size:
        raise DeltaOption(f"tensors {list(tensors)} do not cover {size} parameters in order")
    small = [run for run in ranges if run[1] - run[0] < whole_below]
    large = [run for run in ranges if run[1] - run[0] >= whole_below]
    together = [_merged(large)] if large else []
    chosen = [_Part(runs) for runs in ([(run,) for run in large] if per_tensor else together)]
    return chosen + ([_Part(_merged(small), whole=True)] if small else [])


def _merged(runs: Runs) -> tuple[tuple[int, int], ...]:
    """Adjacent ranges as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in runs:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return tuple(merged)


def _mode(name: str) -> modes.Mode:
    if name not in MODES:
        raise DeltaOption(f"mode {name!r}, allowed are {', '.join(MODES)}")
    return MODES[name]


def _count(size: int, density: float, k: int | None) -> int:
    if k is None:
        if not 0 < density <= 1:
            raise DeltaOption(f"density {density}, allowed is above 0 and up to 1")
        return max(1, round(density * size))
    if k < 1:
        raise DeltaOption(f"k = {k}, at least 1 value must be kept")
    return k


def _checked(vector: Vector) -> Vector:
    if vector.ndim != 1 or vector.dtype != np.float32 or vector.size > frames.MAX_SIZE:
        raise DeltaOption(
            f"vector of dtype {vector.dtype} and shape {vector.shape}, "
            f"expected float32 of one dimension with at most {frames.MAX_SIZE} values"
        )
    return np.ascontiguousarray(vector)


def _checked_id(schema_id: bytes) -> bytes:
    if len(schema_id) != 8:
        raise DeltaOption(f"schema id of {len(schema_id)} bytes, expected 8")
    return schema_id


def _checked_version(version: int) -> int:
    if not 0 <= version < 1 << 32:
        raise DeltaOption(f"base version {version}, allowed are 0 to {(1 << 32) - 1}")
    return version


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 1 << 64:
        raise DeltaOption(f"subset seed {seed}, allowed are 64 bits")
    return seed


def _joined(parts: Sequence[tuple[Ints, Vector]]) -> tuple[Ints, Vector]:
    indices = [np.empty(0, np.int64), *(part[0] for part in parts)]
    values = [np.empty(0, np.float32), *(part[1] for part in parts)]
    return np.concatenate(indices), np.concatenate(values)


def _dense(update: Encoded | SparseDelta) -> Vector:
    vector = np.zeros(update.size, np.float32)
    vector[update.indices] = update.values
    return vector
