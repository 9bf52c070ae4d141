# SPDX-License-Identifier: Apache-2.0
"""Bytes made to mislead the reader: it must answer GraphError, quickly and without large allocations."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import EdgeflError, GraphError
from edgefl.graph import protobuf, read_onnx, write_onnx
from edgefl.graph.protobuf import Message, put_bytes, put_integer
from tests.graph.graphs import peak_bytes, small_cnn

pytestmark = pytest.mark.device

DATA = write_onnx(small_cnn())


def test_every_truncation_is_refused() -> None:
    for size in range(len(DATA) - 1):
        with pytest.raises(GraphError):
            read_onnx(DATA[:size])


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_read_or_refused(at: int, change: int) -> None:
    data = bytearray(DATA)
    data[at] ^= change
    with contextlib.suppress(EdgeflError):
        read_onnx(bytes(data))


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(GraphError):
        read_onnx(data)


@given(st.binary(max_size=200))
def test_noise_in_the_graph_is_read_or_refused(data: bytes) -> None:
    opset = put_bytes(8, put_integer(2, 18))
    with contextlib.suppress(GraphError):
        read_onnx(put_integer(1, 8) + opset + put_bytes(7, data))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x0a\xff\xff\xff\xff\x07x", "claims 2147483647 bytes, 1 are left"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "claims"),
        (b"\x0a" + b"\xff" * 11, "longer than 10"),
        (b"\x08\x80", "ends within"),
        (b"\x0b", "wire type 3"),
        (b"\x0d\0\0", "claims 4 bytes, 2 are left"),
        (b"\x00\x01", "field number 0"),
    ],
)
def test_malformed_fields_are_refused(data: bytes, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        Message(data, "test")


def test_singular_fields_given_twice_are_refused() -> None:
    with pytest.raises(GraphError, match="2 times"):
        Message(put_integer(1, 3) + put_integer(1, 4), "test").integer(1)


def test_fields_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(GraphError, match="not an integer"):
        Message(put_bytes(1, b"x"), "test").integer(1)
    with pytest.raises(GraphError, match="length-delimited"):
        Message(put_integer(1, 3), "test").text(1)


def test_strings_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(GraphError, match="UTF-8"):
        Message(put_bytes(1, b"\xff"), "test").text(1)


def test_unknown_fields_are_skipped() -> None:
    assert (
        Message(put_integer(77, 3) + put_bytes(1, "kept") + b"\xf9\x04" + bytes(8), "test").text(1) == "kept"
    )


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_survive_packed_and_loose(values: list[int]) -> None:
    packed = b"".join(map(protobuf.varint, values))
    loose = protobuf.put_integers(1, values)

    assert Message(put_bytes(1, packed), "test").integers(1).tolist() == values
    assert Message(loose, "test").integers(1).tolist() == values


@pytest.mark.parametrize("packed", [b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"])
def test_malformed_packed_integers_are_refused(packed: bytes) -> None:
    with pytest.raises(GraphError):
        Message(put_bytes(1, packed), "test").integers(1)


def test_a_declared_size_allocates_nothing() -> None:
    tensor = put_integer(1, 1 << 30) + put_integer(2, 1) + put_bytes(8, "c") + put_bytes(9, b"")
    model = put_integer(1, 8) + put_bytes(8, put_integer(2, 18)) + put_bytes(7, put_bytes(5, tensor))

    def read() -> None:
        with pytest.raises(GraphError, match="0 elements of data"):
            read_onnx(model)

    assert peak_bytes(read) < 1 << 20
