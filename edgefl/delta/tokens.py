# SPDX-License-Identifier: Apache-2.0
"""Hybrid unsigned integers: one token byte each, which an entropy coder shrinks, and raw extra bits.

A value below 16 is its own token. Above, with `e = floor(log2 value)`, the token is `16 + 4 (e - 4) + m`,
where `m` are the two bits after the leading one, and the `e - 2` bits that remain follow in the stream of
extra bits. Gaps between nonzeros follow no fixed law on real updates; tokens let an adaptive coder learn it
from 30 symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.delta.bits import Array, Bytes, pack_fields, packed_size, padding_is_zero, unpack_fields
from edgefl.errors import DeltaIndex

TOKENS = 136
"""Number of tokens: values stay below 2**34."""

LARGEST = (1 << 34) - 1

_TINY = 16
_CODES = np.arange(256)
_OCTAVES = np.maximum(_CODES - _TINY, 0) >> 2
_WIDTHS = np.where((_CODES < _TINY) | (_CODES >= TOKENS), 0, _OCTAVES + 2)
_BASES = np.where(_CODES < _TINY, _CODES, (4 + (_CODES & 3)) << np.minimum(_OCTAVES + 2, 31))
_REST = (1 << _WIDTHS) - 1
_SHORT_TOKENS = _TINY + 4 * (31 - 4)
_EXACT_IN_FLOAT32 = 1 << 24


@dataclass(frozen=True)
class _Layout:
    """Integers of one width and the float whose top bits hold log2 and the two bits after the leading one."""

    integer: type[np.signedinteger[Any]]
    floating: type[np.floating[Any]]
    shift: int
    bias: int

    def widths(self, tokens: Bytes) -> Array:
        return _WIDTHS.astype(self.integer).take(tokens)

    def bases(self, tokens: Bytes) -> Array:
        return _BASES.astype(self.integer).take(tokens)

    def rests(self, tokens: Bytes) -> Array:
        return _REST.astype(self.integer).take(tokens)


_SHORT = _Layout(np.int32, np.float32, 23 - 2, ((127 + 4) << 2) - _TINY)
_LONG = _Layout(np.int64, np.float64, 52 - 2, ((1023 + 4) << 2) - _TINY)


def split(values: Array) -> tuple[Bytes, bytes]:
    """Values below 2**34 of shape `(n,)` to `n` tokens and the packed extra bits."""
    layout = _SHORT if values.max(initial=0) < _EXACT_IN_FLOAT32 else _LONG
    values = values.astype(layout.integer, copy=False)
    codes = values.astype(layout.floating).view(layout.integer)
    codes >>= layout.shift
    codes -= layout.bias
    np.copyto(codes, values, where=values < _TINY)
    tokens = codes.astype(np.uint8)
    return tokens, pack_fields(values & layout.rests(tokens), layout.widths(tokens))


def join(tokens: Bytes, read: Callable[[int], bytes]) -> Array:
    """The values of tokens, as 32-bit integers where that is enough.

    Args:
        read: gives the extra bits as exactly n bytes, or raises.

    Raises:
        DeltaIndex: a token is outside the code, or the padding of the last byte is not zero.
    """
    top = int(tokens.max(initial=0))
    if top >= TOKENS:
        raise DeltaIndex(f"token {top} is outside the code, which has {TOKENS}")
    layout = _SHORT if top < _SHORT_TOKENS else _LONG
    widths = layout.widths(tokens)
    bits = int(widths.sum(dtype=np.int64))
    extra = read(packed_size(bits))
    if not padding_is_zero(extra, bits):
        raise DeltaIndex("the bits after the last extra bit are not zero")
    values = layout.bases(tokens)
    if bits:
        values += unpack_fields(extra, widths).astype(layout.integer)
    return values
