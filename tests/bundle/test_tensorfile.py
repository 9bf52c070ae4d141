# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefl.errors import TensorFileError
from edgefl.tensorfile import DTYPES, read_metadata, read_tensors, write_tensors

pytestmark = pytest.mark.device


def file_of(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def row(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_exact_bytes() -> None:
    data = write_tensors({"b": np.array([1.0, -2.0], np.float32), "a": np.array(True)})

    header = (
        b'{"a":{"dtype":"BOOL","shape":[],"data_offsets":[0,1]},'
        b'"b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}'
    )
    padding = b" " * (-len(header) % 8)
    expected = (len(header) + len(padding)).to_bytes(8, "little") + header + padding
    assert data == expected + b"\x01" + b"\x00\x00\x80\x3f\x00\x00\x00\xc0"


def test_order_of_insertion_does_not_matter() -> None:
    a, b = np.zeros(3, np.float32), np.ones((2, 2), np.int8)

    assert write_tensors({"a": a, "b": b}) == write_tensors({"b": b, "a": a})


def test_byte_order_and_strides_do_not_matter() -> None:
    plain = np.arange(6, dtype="<f4").reshape(2, 3)

    assert write_tensors({"a": plain.astype(">f4")}) == write_tensors({"a": plain})
    assert write_tensors({"a": np.asfortranarray(plain)}) == write_tensors({"a": plain})


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20),
        st.sampled_from([d.newbyteorder("=") for d in DTYPES.values()]).flatmap(
            lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
        ),
        max_size=5,
    )
)
def test_round_trip(arrays) -> None:
    back = read_tensors(write_tensors(arrays))

    assert list(back) == sorted(arrays)
    for name, value in arrays.items():
        assert back[name].dtype == value.dtype
        assert back[name].shape == value.shape
        assert back[name].tobytes() == value.tobytes()


def test_arrays_read_are_writable_copies() -> None:
    data = write_tensors({"a": np.zeros(3, np.float32)})

    read_tensors(data)["a"][:] = 7

    assert not read_tensors(data)["a"].any()


def test_metadata_travels_and_is_no_tensor() -> None:
    data = write_tensors({"a": np.zeros(1, np.float32)}, {"schema": "ff", "base": "3"})

    assert read_metadata(data) == {"schema": "ff", "base": "3"}
    assert list(read_tensors(data)) == ["a"]


def test_tensors_in_another_order_are_read() -> None:
    header = {"b": row(offsets=(0, 4)), "a": row(offsets=(4, 8))}

    found = read_tensors(file_of(header, np.array([1, 2], np.float32).tobytes()))

    assert (found["a"][0], found["b"][0]) == (2, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header length alone"),
        ((9).to_bytes(8, "little") + b"{}", "declares 9 bytes"),
        ((1 << 63).to_bytes(8, "little") + b"{}", "declares"),
        (file_of(b"{"), "not valid JSON"),
        (file_of(b"\xff"), "not valid JSON"),
        (file_of(b"[" * 100_000), "not valid JSON"),
        (file_of(b'{"a":NaN}'), "not valid JSON"),
        (file_of([]), "no JSON object"),
        (file_of({"a": 3}), "expected an object"),
        (file_of({"a": {"dtype": "F32", "shape": []}}, b"1234"), "missing fields"),
        (file_of({"a": {**row(), "extra": 1}}, b"1234"), "unknown fields"),
        (file_of({"a": row(dtype="BF16", offsets=(0, 2))}, b"12"), "allowed F64"),
        (file_of({"a": row(shape=[-1])}, b"1234"), "allowed 0 to"),
        (file_of({"a": row(shape=[1.0])}, b"1234"), "expected an integer"),
        (file_of({"a": row(shape=[True])}, b"1234"), "expected an integer"),
        (file_of({"a": row(shape=[1] * 17)}, b"1234"), "17 elements"),
        (file_of({"a": row(shape=[2])}, b"1234"), "takes 8 bytes"),
        (file_of({"a": row(shape=[2**31 - 1] * 3)}, b"1234"), "takes"),
        (file_of({"a": row(offsets=(4, 0))}, b"1234"), "takes 4 bytes"),
        (file_of({"a": row(offsets=(0, 4, 8))}, b"1234"), "3 elements"),
        (file_of({"a": row(offsets=(4,))}, b"1234"), "takes 4 bytes"),
        (file_of({"a": row()}, b"123"), "file has 3"),
        (file_of({"a": row()}, b"12345"), "file has 5"),
        (file_of({"a": row(offsets=(1, 5))}, b"12345"), "starts at byte 1"),
        (file_of({"a": row(), "b": row()}, b"1234"), "starts at byte 0"),
        (file_of({"a": row("BOOL", [1], (0, 1))}, b"\x02"), "other than 0 and 1"),
        (file_of(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}'), "more than once"),
        (file_of({"__metadata__": {"a": 1}}), "expected a string"),
    ],
)
def test_malformed_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(TensorFileError, match=message):
        read_tensors(data)


def test_unknown_dtypes_are_not_written() -> None:
    with pytest.raises(TensorFileError, match="complex64"):
        write_tensors({"a": np.zeros(1, np.complex64)})
    with pytest.raises(TensorFileError, match="object"):
        write_tensors({"a": np.array([None])})


def test_the_reserved_name_is_not_written() -> None:
    with pytest.raises(TensorFileError, match="reserved"):
        write_tensors({"__metadata__": np.zeros(1, np.float32)})


VALID = write_tensors({"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2), np.int16)}, {"k": "v"})


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused_but_nothing_else(position: int, value: int) -> None:
    data = bytearray(VALID)
    data[position] = value
    with contextlib.suppress(TensorFileError):
        read_tensors(bytes(data))


@given(st.integers(0, len(VALID) - 1))
def test_every_prefix_is_refused(length: int) -> None:
    with pytest.raises(TensorFileError):
        read_tensors(VALID[:length])
