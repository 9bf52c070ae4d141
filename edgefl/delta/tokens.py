# SPDX-License-Identifier: Apache-2.0
"""Hybrid unsigned integers: one token byte each, which an entropy coder shrinks, and raw extra bits.

A value below 16 is its own token. Above, with `e = floor(log2 value)`, the token is `16 + 4 (e - 4) + m`,
where `m` are the two bits after the leading one, and the `e - 2` bits that remain follow in the stream of
extra bits. Gaps between nonzeros follow no fixed law on real updates; tokens let an adaptive coder learn it
from 30 symbols.
"""

from __future__ import annotations

import numpy as np

from edgefl.delta.bits import Array, Bytes, Ints, pack_fields, packed_size, padding_is_zero, unpack_fields
from edgefl.errors import DeltaIndex

TOKENS = 136
"""Number of tokens: values stay below 2**34."""

LARGEST = (1 << 34) - 1

_CODES = np.arange(TOKENS)
_OCTAVES = np.maximum(_CODES - 16, 0) >> 2
WIDTHS: Bytes = np.where(_CODES < 16, 0, _OCTAVES + 2).astype(np.uint8)
"""Extra bits of every token."""

BASES: Ints = np.where(_CODES < 16, _CODES, (4 + (_CODES & 3)).astype(np.int64) << (_OCTAVES + 2))
"""Smallest value of every token."""

_TINY = 16
# The top bits of a float64 are its exponent and the first two bits of its mantissa: log2 and `m` at once.
_FLOAT_SHIFT = 50
_FLOAT_BASE = ((1023 + 4) << 2) - 16


def split(values: Array) -> tuple[Bytes, bytes]:
    """Values below 2**34 of shape `(n,)` to `n` tokens and the packed extra bits."""
    codes = values.astype(np.float64).view(np.int64)
    codes >>= _FLOAT_SHIFT
    codes -= _FLOAT_BASE
    tokens = codes.astype(np.uint8)
    small = values < _TINY
    tokens[small] = values[small]
    large = ~small
    coarse = tokens[large]
    return tokens, pack_fields(values[large] - BASES[coarse], WIDTHS[coarse])


def extra_bits(tokens: Bytes) -> int:
    """How many extra bits follow these tokens.

    Raises:
        DeltaIndex: a token is not one of the code.
    """
    histogram = np.bincount(tokens, minlength=TOKENS)
    if len(histogram) > TOKENS:
        raise DeltaIndex(f"token {len(histogram) - 1} is outside the code, which has {TOKENS}")
    return int(histogram @ WIDTHS)


def extra_size(tokens: Bytes) -> int:
    """Bytes of extra bits that must follow these tokens."""
    return packed_size(extra_bits(tokens))


def join(tokens: Bytes, extra: bytes) -> Ints:
    """The values of tokens whose extra bits are exactly `extra_size(tokens)` bytes.

    Raises:
        DeltaIndex: the padding of the last byte is not zero.
    """
    values = BASES[tokens]
    large = np.flatnonzero(tokens >= _TINY)
    widths = WIDTHS[tokens[large]]
    if not padding_is_zero(extra, int(widths.sum(dtype=np.int64))):
        raise DeltaIndex("the bits after the last extra bit are not zero")
    values[large] += unpack_fields(extra, widths).view(np.int64)
    return values
