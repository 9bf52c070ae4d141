# SPDX-License-Identifier: Apache-2.0
"""Codes for whole numbers as real bit streams: Elias gamma and Golomb-Rice, most significant bit first."""

from __future__ import annotations

import numpy as np

from benchmarks.peers.codec import Array


def write(values: Array, lengths: Array) -> Array:
    """The lowest `lengths` bits of each value, one after another, as an array of 0 and 1."""
    values, lengths = values.astype(np.uint64), lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    shifts = np.repeat(lengths, lengths) - 1 - within
    made: Array = (np.repeat(values, lengths) >> shifts.astype(np.uint64) & np.uint64(1)).astype(np.uint8)
    return made


def gamma_length(values: Array) -> Array:
    """Bits of the Elias gamma code of numbers from 1 up."""
    made: Array = 2 * np.floor(np.log2(values)).astype(np.int64) + 1
    return made


def rice(values: Array, tails: Array, b: int) -> Array:
    """Values from 0 up in Golomb-Rice code, each followed by one more bit, as an array of 0 and 1.

    A code is as many ones as the value has multiples of `2**b`, a zero, and the rest in b bits.
    """
    high = values >> b
    ends = np.cumsum(high + b + 2)
    made = np.ones(int(ends[-1]) if len(ends) else 0, np.uint8)
    made[ends - b - 2] = 0
    for bit in range(b):
        made[ends - 2 - bit] = values >> bit & 1
    made[ends - 1] = tails
    return made


class Reader:
    """Reads codes from a bit stream, one at a time."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._ones = np.flatnonzero(self._bits)
        self._zeros = np.flatnonzero(self._bits == 0)
        self._at = 0

    def take(self, count: int) -> int:
        """The next bits as a number."""
        value = 0
        for bit in self._bits[self._at : self._at + count].tolist():
            value = value << 1 | bit
        self._at += count
        return value

    def gamma(self) -> int:
        """The next Elias gamma code."""
        width = int(self._ones[np.searchsorted(self._ones, self._at)]) - self._at
        self._at += width
        return self.take(width + 1)

    def rice(self, b: int) -> int:
        """The next Golomb-Rice code."""
        high = int(self._zeros[np.searchsorted(self._zeros, self._at)]) - self._at
        self._at += high + 1
        return high << b | self.take(b)
