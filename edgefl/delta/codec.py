# SPDX-License-Identifier: Apache-2.0
"""Vectors to frames and back: modes choose what survives and on which grid, sections carry it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgefl.delta import frame as frames
from edgefl.delta import grid, sparse
from edgefl.delta.bits import Ints
from edgefl.delta.coders import CODER_NAMES
from edgefl.delta.frame import Coded, Header, Limits
from edgefl.delta.grid import Grid
from edgefl.delta.sections import STREAM_COUNTS, decode_section
from edgefl.delta.selection import top_k
from edgefl.delta.unbiased import stochastic_round, unit_for
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
        nmse: expected squared error over the squared norm (unbiased modes), else None.
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
        total[self.indices] += self.values * total.dtype.type(weight)

    @property
    def norm(self) -> float:
        """Euclidean length."""
        values = self.values.astype(np.float64)
        return float(np.sqrt(values @ values))


@dataclass(frozen=True)
class Request:
    """What an encoder is asked for, after checking.

    Attributes:
        k: values to keep (exactly, or in expectation).
        rng: randomness of the unbiased modes.
        nmse_limit: most noise an unbiased mode may make, relative to the squared norm.
        coders: coders that may be used.
        thorough: whether to spend time on smaller streams.
    """

    k: int
    rng: np.random.Generator
    nmse_limit: float | None
    coders: Collection[str]
    thorough: bool


@dataclass(frozen=True)
class Outcome:
    """What a mode made of a vector that is not zero."""

    sections: tuple[Coded, ...]
    indices: Ints
    values: Vector
    flags: int = 0
    nmse: float | None = None


def encode(
    vector: Vector,
    *,
    schema_id: bytes,
    base_version: int,
    density: float = 0.01,
    k: int | None = None,
    mode: str = "topk",
    meta: Mapping[str, Any] | None = None,
    rng: np.random.Generator | int | None = None,
    nmse_limit: float | None = None,
    coders: Collection[str] = CODER_NAMES,
    thorough: bool = False,
) -> Encoded:
    """Code a flat update.

    Args:
        vector: float32 of shape `(d,)`.
        schema_id: 8 bytes, see `edgefl.parameters.Schema.id`.
        base_version: model version the update starts from, unsigned 32 bits.
        density: share of the parameters to keep, in (0, 1]; `k` says it as a number instead.
        mode: one of `MODES`. `topk` keeps the largest magnitudes and wants error feedback, `ternary` is the
            same with two values only, `unbiased` rounds at random and needs no state.
        meta: JSON object of at most 4096 bytes.
        rng: generator or seed for modes that round at random (default: fresh entropy).
        nmse_limit: guard of `unbiased`: D shrinks until the noise over the squared norm is at most this; five
            times the size of the cohort is sound.
        coders: names of the coders allowed; zstd is used where installed.
        thorough: spend more time on a smaller frame, for one that is made once and sent to many.

    Raises:
        DeltaOption: an argument outside what is allowed.
        NotFinite: NaN, infinity or a magnitude over 1e37 in the vector.
    """
    vector = _checked(vector)
    request = Request(
        _count(vector.size, density, k), np.random.default_rng(rng), nmse_limit, coders, thorough
    )
    outcome = _mode(mode)(vector, request)
    header = Header(_checked_id(schema_id), _checked_version(base_version), outcome.flags, meta or {})
    data = frames.pack(header, outcome.sections)
    return Encoded(data, outcome.indices, outcome.values, vector.size, outcome.nmse)


def decode(frame: bytes, limits: Limits) -> SparseDelta:
    """Check and decode a frame, in memory bounded by the limits.

    Raises:
        DeltaError: its subclass for the first thing found wrong.
    """
    header, sections = frames.parse(frame, limits, STREAM_COUNTS)
    parts = [decode_section(coded) for coded in sections]
    indices, values = _joined(parts)
    largest = np.abs(values).max(initial=np.float32(0))
    if not largest <= limits.max_magnitude:
        raise DeltaValue(f"a value has magnitude {largest}, at most {limits.max_magnitude} is allowed")
    unbiased = bool(header.flags & frames.UNBIASED)
    return SparseDelta(indices, values, limits.size, header.base_version, unbiased, header.meta)


def _top_k(vector: Vector, request: Request) -> Outcome:
    indices = top_k(vector, request.k)
    return _on_grid(vector, indices, request) if len(indices) else _NOTHING


def _ternary(vector: Vector, request: Request) -> Outcome:
    indices = top_k(vector, request.k)
    return _on_grid(vector, indices, request, one_level=True) if len(indices) else _NOTHING


def _on_grid(vector: Vector, indices: Ints, request: Request, one_level: bool = False) -> Outcome:
    picked = vector[indices]
    magnitudes = np.abs(picked)
    step = grid.step_for(magnitudes)
    levels = np.zeros(len(picked), np.int64) if one_level else grid.levels_of(magnitudes, step)
    return _sparse(vector, indices, levels, grid.fit(magnitudes, levels, step), request)


def _unbiased(vector: Vector, request: Request) -> Outcome:
    if not vector.any():
        return _NOTHING
    unit, noise = unit_for(vector, request.k, request.nmse_limit)
    rounded = stochastic_round(vector, unit, request.rng)
    if not len(rounded.indices):
        return Outcome((), *_joined(()), frames.UNBIASED, noise)
    lattice = Grid(unit, unit, 0.0)
    return _sparse(
        vector, rounded.indices, rounded.multiples - 1, lattice, request, flags=frames.UNBIASED, nmse=noise
    )


def _sparse(
    vector: Vector, indices: Ints, levels: Ints, lattice: Grid, request: Request, **extra: Any
) -> Outcome:
    negative = np.signbit(vector[indices])
    coded = sparse.encode(
        0,
        vector.size,
        indices,
        negative,
        levels,
        lattice,
        coders=request.coders,
        thorough=request.thorough,
    )
    values = grid.signed(lattice.magnitudes(levels), negative.view(np.uint8))
    return Outcome((coded,), indices, values, **extra)


MODES: Mapping[str, Callable[[Vector, Request], Outcome]] = {
    "topk": _top_k,
    "ternary": _ternary,
    "unbiased": _unbiased,
}
"""What the encoder can be asked for by name."""


def _mode(name: str) -> Callable[[Vector, Request], Outcome]:
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


def _joined(parts: Collection[tuple[Ints, Vector]]) -> tuple[Ints, Vector]:
    if len(parts) == 1:
        return next(iter(parts))
    indices = [np.empty(0, np.int64), *(part[0] for part in parts)]
    values = [np.empty(0, np.float32), *(part[1] for part in parts)]
    return np.concatenate(indices), np.concatenate(values)


def _dense(update: Encoded | SparseDelta) -> Vector:
    vector = np.zeros(update.size, np.float32)
    vector[update.indices] = update.values
    return vector


_NOTHING = Outcome((), *_joined(()))
