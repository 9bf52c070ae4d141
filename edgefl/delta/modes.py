# SPDX-License-Identifier: Apache-2.0
"""What survives of an update, and on which grid: one function per mode.

A mode takes a vector, how many values to keep, and the runs of parameters it may use, and returns sections
with the values their decoder will see.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgefl.delta import frame as frames
from edgefl.delta import grid, ints, raw, sparse
from edgefl.delta.bits import Array, Ints
from edgefl.delta.grid import Grid
from edgefl.delta.selection import top_k
from edgefl.delta.table import Coded
from edgefl.delta.unbiased import moments, stochastic_round, unit_for
from edgefl.parameters import Vector

Runs = Sequence[tuple[int, int]]
"""Half-open ranges of parameters, ascending."""


@dataclass(frozen=True)
class Request:
    """What is asked of a mode.

    Attributes:
        k: values to keep (exactly, or in expectation) by modes that choose.
        rng: randomness of modes that round at random.
        nmse_limit: most noise `unbiased` may make, relative to the squared norm.
        subset_seed: which parameters `subset` sends.
        coders: coders that may be used.
        thorough: whether to spend time on smaller streams.
    """

    k: int
    rng: np.random.Generator
    nmse_limit: float | None
    subset_seed: int
    coders: Collection[str]
    thorough: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a vector: sections, and what their decoder sees."""

    sections: tuple[Coded, ...]
    indices: Ints
    values: Vector
    flags: int = 0
    nmse: float | None = None

    def moved(self, start: int) -> Outcome:
        """The same at another place of a longer vector."""
        sections = (
            Coded(replace(c.section, start=c.section.start + start), c.streams) for c in self.sections
        )
        return replace(self, sections=tuple(sections), indices=self.indices + start)


Mode = Callable[[Vector, Runs, Request], Outcome]


def nothing(flags: int = 0) -> Outcome:
    """The outcome of an update that is zero."""
    return Outcome((), np.empty(0, np.int64), np.empty(0, np.float32), flags)


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """Outcomes for disjoint parameters as one, in ascending order."""
    if len(outcomes) == 1:
        return outcomes[0]
    sections = sorted((c for o in outcomes for c in o.sections), key=lambda c: c.section.start)
    indices = np.concatenate([o.indices for o in outcomes])
    order = np.argsort(indices, kind="stable")
    values = np.concatenate([o.values for o in outcomes])
    noises = [o.nmse for o in outcomes if o.nmse is not None]
    flags = max(o.flags for o in outcomes)
    return Outcome(tuple(sections), indices[order], values[order], flags, max(noises, default=None))


def topk(vector: Vector, runs: Runs, request: Request) -> Outcome:
    """The largest magnitudes, on a grid whose step is the smallest of them."""
    indices, picked = top_k(vector, request.k)
    if not len(indices):
        return nothing()
    magnitudes = np.abs(picked)
    step = grid.step_for(magnitudes)
    levels = grid.levels_of(magnitudes, step)
    return _sparse(picked, indices, levels, grid.fit(magnitudes, levels, step), runs, request)


def ternary(vector: Vector, runs: Runs, request: Request) -> Outcome:
    """The largest magnitudes, all as plus or minus their mean (Sattler et al. 2019)."""
    indices, picked = top_k(vector, request.k)
    if not len(indices):
        return nothing()
    magnitudes = np.abs(picked)
    levels = np.zeros(len(picked), np.int32)
    return _sparse(
        picked, indices, levels, grid.fit(magnitudes, levels, float(magnitudes.max())), runs, request
    )


def unbiased(vector: Vector, runs: Runs, request: Request) -> Outcome:
    """Stochastic rounding to multiples of a D that leaves `k` nonzeros in expectation."""
    if not vector.any():
        return nothing(frames.UNBIASED)
    unit, noise = unit_for(vector, request.k, request.nmse_limit)
    rounded = stochastic_round(vector, unit, request.rng)
    if not len(rounded.indices):
        return replace(nothing(frames.UNBIASED), nmse=noise)
    picked, lattice = vector[rounded.indices], Grid(unit, unit, 0.0)
    outcome = _sparse(picked, rounded.indices, rounded.multiples - 1, lattice, runs, request)
    return replace(outcome, flags=frames.UNBIASED, nmse=noise)


def dense(width: int) -> Mode:
    """Every parameter as an integer of `width` bits, rounded at random without bias."""

    def mode(vector: Vector, runs: Runs, request: Request) -> Outcome:
        top = moments(vector).largest
        if not top:
            return nothing(frames.UNBIASED)
        step = _step(top, width)
        integers = _round(vector, step, width, request.rng)
        sections = tuple(
            ints.encode_dense(start, integers[start:stop], width, step, request.coders)
            for start, stop in runs
        )
        indices = np.concatenate([np.arange(start, stop) for start, stop in runs])
        return Outcome(sections, indices, ints.scaled(integers, step)[indices], frames.UNBIASED)

    return mode


def whole(kind: int) -> Mode:
    """Every parameter as float16 or float32."""

    def mode(vector: Vector, runs: Runs, request: Request) -> Outcome:
        if not moments(vector).largest:
            return nothing()
        parts = []
        for start, stop in runs:
            coded, values = raw.encode(start, vector[start:stop], kind, request.coders)
            parts.append(Outcome((coded,), np.arange(start, stop), values))
        return joined(parts)

    return mode


def subset(vector: Vector, runs: Runs, request: Request) -> Outcome:
    """Parameters chosen by a seed, scaled up so that nothing is biased, as 8-bit integers."""
    if not moments(vector).largest:
        return nothing(frames.UNBIASED)
    size = sum(stop - start for start, stop in runs)
    outcomes = [_subset_run(vector, run, size, request) for run in runs]
    return joined(outcomes)


def _subset_run(vector: Vector, run: tuple[int, int], size: int, request: Request) -> Outcome:
    start, stop = run
    length = stop - start
    count = min(max(1, round(request.k * length / size)), length)
    indices = start + ints.subset(request.subset_seed, length, count)
    picked = vector[indices] * np.float32(length / count)
    step = _step(float(np.abs(picked).max()), 8)
    integers = _round(picked, step, 8, request.rng)
    coded = ints.encode_subset(start, length, request.subset_seed, integers, 8, step, request.coders)
    return Outcome((coded,), indices, ints.scaled(integers, step), frames.UNBIASED)


def _step(top: float, width: int) -> float:
    """The smallest float32 that keeps `top` within the integers of a width."""
    return float(np.nextafter(np.float32(top / ints.largest(width)), np.float32(np.inf)))


def _round(vector: Vector, step: float, width: int, rng: np.random.Generator) -> Array:
    """Integers whose expectation is `vector / step`."""
    integers = np.empty(len(vector), np.int8)
    for start in range(0, len(vector), 1 << 16):
        exact = vector[start : start + (1 << 16)] / np.float64(step)
        exact += rng.random(len(exact))
        integers[start : start + len(exact)] = np.clip(
            np.floor(exact), -ints.largest(width), ints.largest(width)
        )
    return integers


def _sparse(
    picked: Vector, indices: Ints, levels: Array, lattice: Grid, runs: Runs, request: Request
) -> Outcome:
    negative = np.signbit(picked)
    bounds = np.searchsorted(indices, np.array(runs)).tolist()
    sections = tuple(
        sparse.encode(
            start,
            stop - start,
            indices[first:last] - start,
            negative[first:last],
            levels[first:last],
            lattice,
            coders=request.coders,
            thorough=request.thorough,
        )
        for (start, stop), (first, last) in zip(runs, bounds, strict=True)
        if first < last
    )
    values = grid.signed(lattice.magnitudes(levels), negative.view(np.uint8))
    return Outcome(sections, indices, values)


MODES: Mapping[str, Mode] = {
    "topk": topk,
    "ternary": ternary,
    "unbiased": unbiased,
    "dense8": dense(8),
    "dense4": dense(4),
    "float16": whole(raw.HALF),
    "float32": whole(raw.SINGLE),
    "subset": subset,
}
"""What the encoder can be asked for by name: `edgefl.options.MODES`, which costs no NumPy."""
