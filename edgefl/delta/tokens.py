# SPDX-License-Identifier: Apache-2.0
"""Hybrid unsigned integers: one token byte each, which an entropy coder shrinks, and raw extra bits.

A value below 16 is its own token. Above, with `e = floor(log2 value)`, the token is `16 + 4 (e - 4) + m`,
where `m` are the two bits after the leading one, and the `e - 2` bits that remain follow in the stream of
extra bits. Gaps between nonzeros follow no fixed law on real updates; tokens let an adaptive coder learn it
from 30 symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgefl.delta.bits import Array, Bytes, FieldReader, FieldWriter, Ints, packed_size, padding_is_zero
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
_WIDTH_BYTES = _WIDTHS.astype(np.uint8)
_WIDTH_BITS = 6
_WIDTH_MASK = (1 << _WIDTH_BITS) - 1
_BASES_AND_WIDTHS = _BASES << _WIDTH_BITS | _WIDTHS
_EXACT_IN_FLOAT32 = 1 << 24


# Temporaries this small are reused by the allocator; large ones cost more in fresh pages than in arithmetic.
_PIECE = 1 << 14


@dataclass(frozen=True)
class _Layout:
    """Tables of one integer type, and the float whose top bits are log2 and what follows the leading one."""

    integer: type[np.signedinteger[Any]]
    floating: type[np.floating[Any]]
    shift: int
    bias: int
    widths: Array
    rests: Array


def _layout(integer: Any, floating: Any, mantissa: int, exponent_bias: int) -> _Layout:
    tables = (table.astype(integer) for table in (_WIDTHS, _REST))
    return _Layout(integer, floating, mantissa - 2, ((exponent_bias + 4) << 2) - _TINY, *tables)


_SHORT = _layout(np.int32, np.float32, 23, 127)
_LONG = _layout(np.int64, np.float64, 52, 1023)


def split(values: Array) -> tuple[Bytes, bytes]:
    """Values below 2**34 of shape `(n,)` to `n` tokens and the packed extra bits."""
    layout = _SHORT if values.max(initial=0) < _EXACT_IN_FLOAT32 else _LONG
    tokens, extra = np.empty(len(values), np.uint8), FieldWriter()
    for start in range(0, len(values), _PIECE):
        piece = values[start : start + _PIECE].astype(layout.integer, copy=False)
        codes = piece.astype(layout.floating).view(layout.integer)
        codes >>= layout.shift
        codes -= layout.bias
        np.copyto(codes, piece, where=piece < _TINY)
        own = tokens[start : start + _PIECE]
        own[:] = codes
        extra.write(piece & layout.rests.take(own), layout.widths.take(own))
    return tokens, extra.finish()


def join(tokens: Bytes, read: Callable[[int], bytes]) -> Ints:
    """The values of tokens, as new 64-bit integers.

    Args:
        read: gives the extra bits as exactly n bytes, or raises.

    Raises:
        DeltaIndex: a token is outside the code, or the padding of the last byte is not zero.
    """
    top = int(tokens.max(initial=0))
    if top >= TOKENS:
        raise DeltaIndex(f"token {top} is outside the code, which has {TOKENS}")
    bits = sum(int(_WIDTH_BYTES.take(piece).sum()) for piece in _pieces(tokens))
    extra = read(packed_size(bits))
    if not padding_is_zero(extra, bits):
        raise DeltaIndex("the bits after the last extra bit are not zero")
    values = np.empty(len(tokens), np.int64)
    fields, start = FieldReader(extra), 0
    for piece in _pieces(tokens):
        numbers = _BASES_AND_WIDTHS.take(piece)
        widths = numbers & _WIDTH_MASK
        numbers >>= _WIDTH_BITS
        numbers += fields.read(widths).view(np.int64)
        values[start : start + len(piece)] = numbers
        start += len(piece)
    return values


def _pieces(tokens: Bytes) -> Iterator[Bytes]:
    return (tokens[start : start + _PIECE] for start in range(0, len(tokens), _PIECE))
