# SPDX-License-Identifier: Apache-2.0
"""Random masks out of standard operators, the same bits on every engine.

A mask is a function of a 24-bit seed and of each element's place, so nothing random crosses between engines.
All numbers are multiples of 2^-24 that float32 holds exactly through additions, products of two 12-bit
numbers and Floor, in whatever order an engine evaluates them; integers of 32 bits wrap differently on each.

Rows and columns of each mask get 24 bits by a Feistel network (six rounds, keyed by the seed, of the middle
bits of a product) of their numbers, all masks at once; an element combines those of its row and its column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgefl.converters.autodiff.expression import Expr
from edgefl.errors import ConversionError

SEEDS = 1 << 24
"""Seeds are below this; negative ones keep everything."""

_HALF = 1 << 12  # numbers of half a block
_KEYS = (0x243, 0xF6B, 0x889, 0x5A3, 0x08D, 0x313)  # digits of pi made odd, one for each round


class Masks:
    """The masks of one graph."""

    def __init__(self, seed: Expr, shapes: Sequence[tuple[int, ...]]) -> None:
        """Prepare masks of the given shapes from `seed`, int32 `[1]`."""
        self._tables = [_table(math.prod(shape)) for shape in shapes]
        self._shapes = list(shapes)
        self._starts = np.cumsum([0, *(rows + columns for rows, columns in self._tables)])
        if self._starts[-1] > SEEDS:
            raise ConversionError(f"dropout masks have {self._starts[-1]} rows and columns, allowed {SEEDS}")
        self.training = seed.greater(-1)
        self._left, self._right = _feistel(seed, int(self._starts[-1]))
        self._factor = (self._left * (_HALF / 2)).apply("Floor") * 2 + 1
        # Six bits more than the factors give, so that rates are met to 2^-18.
        self._offset = self._right + self._left * (1 / 64)

    def scale(self, index: int, rate: float) -> Expr:
        """What to multiply by: 0 with probability `rate`, else `1 / (1 - rate)`; 1 for a negative seed."""
        training, one = self.training, self._left.constant(1.0)
        below = training.where(one.constant(1 - rate), 2.0)
        kept = training.where(one.constant(1 / (1 - rate) if rate < 1 else 0.0), 1.0)
        shape = self._tables[index]
        drawn = self._uniform(index)
        mask = drawn.less(below.reshape((1, 1))).where(kept.reshape((1, 1)), 0.0)
        return mask.expand(shape).reshape(self._shapes[index])

    def _uniform(self, index: int) -> Expr:
        """Multiples of 2^-18 in [0, 1), `[rows, columns]`."""
        rows, columns = self._tables[index]
        first = int(self._starts[index])
        middle, last = first + rows, first + rows + columns

        def row(values: Expr) -> Expr:
            return values.slice(0, first, middle).reshape((rows, 1))

        def column(values: Expr) -> Expr:
            return values.slice(0, middle, last).reshape((1, columns))

        mixed = _fraction(row(self._factor) * column(self._left))
        return _fraction(mixed + row(self._offset) + column(self._offset))


def _table(size: int) -> tuple[int, int]:
    """Rows and columns of about the same number for a mask of so many elements."""
    rows = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    return rows, size // rows


def _feistel(seed: Expr, count: int) -> tuple[Expr, Expr]:
    """Halves, multiples of 2^-12 in [0, 1), of the first `count` numbers in the order the seed gives them."""
    whole = seed.apply("Max", seed.constant(0)).cast(np.float32) * (1 / _HALF)
    high = whole.apply("Floor")
    halves = (whole - high, high * (1 / _HALF))
    numbers = np.arange(count)
    left = halves[0].constant((numbers // _HALF / _HALF).astype(np.float32))
    right = halves[0].constant((numbers % _HALF / _HALF).astype(np.float32))
    for i, key in enumerate(_KEYS):
        mixed, other = _fraction(right + halves[i % 2]), halves[1 - i % 2] + key / _HALF
        left, right = right, _fraction(left + other + _middle(mixed * _fraction(mixed + key / _HALF)))
    return left, right


def _middle(product: Expr) -> Expr:
    """The middle 12 of the 24 bits of a product."""
    return (_fraction(product * 64.0) * float(_HALF)).apply("Floor") * (1 / _HALF)


def _fraction(values: Expr) -> Expr:
    return values - values.apply("Floor")
