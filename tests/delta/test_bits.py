# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.delta import bits, tokens
from edgefl.errors import DeltaIndex

FIELDS = st.lists(st.integers(0, 32).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, (1 << w) - 1))))


@given(FIELDS, st.integers(1, 5))
def test_fields_are_concatenated_least_significant_bit_first(
    fields: list[tuple[int, int]], pieces: int
) -> None:
    widths, values = np.array([w for w, _ in fields], np.int64), np.array([v for _, v in fields], np.int64)
    cuts = list(zip(np.array_split(values, pieces), np.array_split(widths, pieces), strict=True))
    writer = bits.FieldWriter()

    for some_values, some_widths in cuts:
        writer.write(some_values, some_widths)

    number = shift = 0
    for width, value in fields:
        number, shift = number | value << shift, shift + width
    data = writer.finish()
    assert data == number.to_bytes((shift + 7) // 8, "little")
    reader = bits.FieldReader(data)
    assert [int(v) for _, w in cuts if len(w) for v in reader.read(w)] == values.tolist()


@given(st.sampled_from([1, 2, 4]), st.data())
def test_planes_hold_the_first_level_lowest(width: int, data: st.DataObject) -> None:
    levels = data.draw(st.lists(st.integers(0, (1 << width) - 1)))

    packed = bits.pack_plane(np.array(levels, np.int64), width)

    number = sum(level << i * width for i, level in enumerate(levels))
    assert packed == number.to_bytes((len(levels) * width + 7) // 8, "little")
    assert bits.unpack_plane(packed, width, len(levels)).tolist() == levels


@given(st.lists(st.integers(0, 100) | st.integers(0, tokens.LARGEST)))
def test_tokens_and_extra_bits_give_the_values_back(values: list[int]) -> None:
    codes, extra = tokens.split(np.array(values, np.int64))

    def read(size: int) -> bytes:
        assert size == len(extra)
        return extra

    assert tokens.join(codes, read).tolist() == values


@pytest.mark.parametrize(
    ("value", "token", "extra"),
    [
        (0, 0, 0),
        (15, 15, 0),
        (16, 16, 0),
        (19, 16, 3),
        (20, 17, 0),
        (31, 19, 3),
        (32, 20, 0),
        (100, 26, 4),
        (tokens.LARGEST, 135, (1 << 31) - 1),
    ],
)
def test_tokens_follow_the_table_of_the_format(value: int, token: int, extra: int) -> None:
    codes, data = tokens.split(np.array([value]))

    assert codes.tolist() == [token]
    assert int.from_bytes(data, "little") == extra


def test_a_token_outside_the_code_is_refused() -> None:
    with pytest.raises(DeltaIndex, match="token 136"):
        tokens.join(np.array([3, 136], np.uint8), bytes)


def test_padding_after_the_extra_bits_must_be_zero() -> None:
    with pytest.raises(DeltaIndex, match="not zero"):
        tokens.join(np.array([16], np.uint8), lambda size: b"\x04")
