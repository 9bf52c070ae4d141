# SPDX-License-Identifier: Apache-2.0
"""A few numbers per array that say how far another array is from it, without the array itself.

A row holds the norm and eight projections on fixed vectors of random signs (Johnson and Lindenstrauss, 1984):
of a difference, the root mean square of its projections estimates its norm, so the difference of two rows
estimates the norm of the arrays' difference. The signs come from PCG64's raw bits, the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PROJECTIONS = 8
COLUMNS = 3 + PROJECTIONS
"""Of an encoded row: norm, slack, elements that are not finite, projections."""

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "int8": 5e-2}
"""Largest difference allowed, in the 2-norm over the array's, by the coarsest arithmetic in use."""

_BLOCK = 4096
_BLOCKS_AT_ONCE = 256
_NOISE = 1e-2
"""Of the largest of its kind: with 1e-4 of that, 16 roundings in float32 of the largest are allowed anywhere,
since what cancels to nothing, as the gradient of a bias before a BatchNorm, is left with as many."""

_LEVELS = 2
_SLACKS, _MOST_SLACK = 2.0, 1e-2
_TINY = 1e-38


@dataclass(frozen=True)
class Row:
    """What is known of one array.

    Attributes:
        norm: the 2-norm of its finite elements.
        projections: of them, in the order of the fixed vectors.
        odd: how many elements are not finite.
        slack: how far the array moves, in the 2-norm, where what it is computed from moves by about as much
            as rounding moves it.
    """

    norm: float
    projections: tuple[float, ...]
    odd: int = 0
    slack: float = 0.0


Sketch = Mapping[str, Row]
"""Rows by the names of a graph's outputs."""


@dataclass(frozen=True)
class Difference:
    """The worst difference between arrays and a sketch.

    Attributes:
        output: where it is.
        excess: over what is allowed; 1 is just allowed.
        apart: norm of the difference over the array's.
        why: in words, "" where nothing differs.
    """

    output: str
    excess: float
    apart: float = 0.0
    why: str = ""

    def __str__(self) -> str:
        return f"{described(self.output)} {self.why or 'is the same'}"


def sketch(values: Mapping[str, Array]) -> dict[str, Row]:
    """A row for each array."""
    return {name: _row(value) for name, value in values.items()}


def loosened(
    values: Mapping[str, Array], moved: Mapping[str, Array], most: float = _MOST_SLACK
) -> dict[str, Row]:
    """The sketch of arrays, with the slack that others show, for which all was rounded in another way.

    Twice their distance: of one as large, the estimate by projections is larger once in a thousand times.

    Args:
        most: of that distance, over an array's norm.
    """
    rows = sketch(values)
    return {
        name: replace(row, slack=_SLACKS * min(_apart(values[name], moved[name]), most * row.norm))
        for name, row in rows.items()
    }


def _apart(one: Array, other: Array) -> float:
    """The 2-norm of the difference of two arrays of a shape, where it is finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.subtract(one, other, dtype=np.float64).ravel()
    apart = np.where(np.isfinite(apart), apart, 0)
    return math.sqrt(float(apart @ apart))


def roughness(rows: Sketch, tolerance: float) -> float:
    """How far rounding moves the worst output over half of what is allowed to any engine."""
    return max(row.slack / (tolerance * _scale(name, rows)) for name, row in rows.items())


def tolerance_for(kind: str, dtype: str) -> float:
    """What is allowed on a graph of this kind to an engine with this arithmetic. Graphs that train are held
    to float32 whoever runs them."""
    if kind.endswith("-int8"):
        return TOLERANCES["int8"]
    return TOLERANCES["float32" if kind == "step" else dtype]


def difference(rows: Sketch, made: Mapping[str, Array], tolerance: float) -> Difference:
    """The worst of the differences between arrays and what a sketch says of them.

    An output far smaller than the largest of its kind (gradients, buffers, the others) is compared at its
    scale: where a gradient is rounding noise, noise of another kind is as good. Missing outputs and elements
    that should be finite count as infinitely far.
    """
    found = [_compared(n, row, made.get(n), tolerance, _scale(n, rows)) for n, row in rows.items()]
    return max(found, key=lambda one: one.excess)


def described(output: str) -> str:
    """A graph's output in words: `grad/w` is the gradient of 'w'."""
    family, slash, rest = output.partition("/")
    words = {"grad": "the gradient of", "buffer": "the updated buffer", "output": "the output"}
    if slash and family in words:
        return f"{words[family]} {rest!r}"
    return "the loss" if output == "loss" else f"the output {output!r}"


def encode(rows: Sketch, names: Sequence[str]) -> Array:
    """float32 `[len(names), COLUMNS]`."""
    table = [(rows[n].norm, rows[n].slack, rows[n].odd, *rows[n].projections) for n in names]
    return np.array(table, np.float32).reshape(len(names), COLUMNS)


def decode(table: Array, names: Sequence[str]) -> dict[str, Row]:
    """The rows of `encode`; raises ValueError where the table does not fit the names."""
    if table.shape != (len(names), COLUMNS) or not np.isfinite(table).all():
        raise ValueError(f"a sketch of {len(names)} outputs cannot have shape {table.shape}")
    return {
        name: Row(float(norm), tuple(map(float, projections)), int(odd), float(slack))
        for name, (norm, slack, odd, *projections) in zip(names, table, strict=True)
    }


def _row(value: Array) -> Row:
    flat = np.asarray(value).ravel()
    finite = np.isfinite(flat)
    if not finite.all():
        flat = np.where(finite, flat, 0)
    norm, projections = 0.0, np.zeros(PROJECTIONS)
    step = _BLOCK * _BLOCKS_AT_ONCE
    for start in range(0, flat.size, step):
        piece = flat[start : start + step].astype(np.float64)
        norm += float(piece @ piece)
        projections += _projected(piece, start // _BLOCK)
    return Row(math.sqrt(norm), tuple(map(float, projections)), int(flat.size - finite.sum()))


def _projected(piece: Array, block: int) -> Array:
    """Projections of consecutive blocks of elements: signs within a block, times a sign of the block's."""
    whole = piece.size // _BLOCK
    made = piece[: whole * _BLOCK].reshape(whole, _BLOCK) @ _signs(0, _BLOCK)
    rest = piece[whole * _BLOCK :]
    made = np.concatenate([made, (rest @ _signs(0, _BLOCK)[: rest.size])[None]])
    stop = block + len(made)
    signs = _signs(1, -(-stop // _BLOCK) * _BLOCK)[block:stop]
    return np.asarray((signs * made).sum(0))


@cache
def _signs(seed: int, count: int) -> Array:
    """-1 or 1, float64 `[count, PROJECTIONS]`."""
    raw = np.random.PCG64(seed).random_raw(count * PROJECTIONS // 64).astype("<u8")
    return 1.0 - 2.0 * np.unpackbits(raw.view(np.uint8)).reshape(count, PROJECTIONS)


def _scale(name: str, rows: Sketch) -> float:
    """What a difference is measured by: the output's norm, or a hundredth of the largest of its kind."""
    family = (row.norm for key, row in rows.items() if _family(key) == _family(name))
    return max(rows[name].norm, _NOISE * max(family), _TINY)


def _compared(name: str, row: Row, made: Array | None, tolerance: float, scale: float) -> Difference:
    if made is None:
        return Difference(name, math.inf, math.inf, "is missing")
    own = _row(made)
    if own.odd != row.odd:
        return Difference(
            name, math.inf, math.inf, f"holds {own.odd} values that are not finite, expected {row.odd}"
        )
    distance = _distance(row, own)
    allowed = max(_allowed(made, tolerance, scale), row.slack)
    why = (
        f"is off by {distance / scale:.2g} times its norm, allowed {allowed / scale:.1g} times"
        if distance
        else ""
    )
    return Difference(name, distance / allowed, distance / scale, why)


def _allowed(made: Array, tolerance: float, scale: float) -> float:
    """Bytes may be two levels off; other integers are exact, up to the rounding of rows."""
    if made.dtype.kind == "f":
        return tolerance * scale
    if made.dtype.itemsize == 1 and made.dtype.kind in "iu":
        return _LEVELS * math.sqrt(max(made.size, 1))
    return 1e-6 * scale


def _distance(one: Row, other: Row) -> float:
    """An estimate of the norm of the arrays' difference, at least the difference of their norms."""
    apart = np.subtract(one.projections, other.projections)
    found = max(float(np.sqrt(np.mean(apart**2))), abs(one.norm - other.norm))
    # Rows are kept in float32.
    return 0.0 if found <= max(2e-7 * max(one.norm, other.norm), _TINY) else found


def _family(output: str) -> str:
    family = output.partition("/")[0]
    return family if family in ("grad", "buffer") else ""
