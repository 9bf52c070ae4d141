# SPDX-License-Identifier: Apache-2.0
"""Named tensors as bytes, in the safetensors layout.

A file is an 8-byte little-endian header length, a JSON header `{name: {dtype, shape, data_offsets}}` padded
with spaces to a multiple of 8, and the tensors back to back, little-endian and in C order. This writer sorts
tensors by name, so equal tensors give equal bytes; the reader takes any order without gap or overlap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.errors import TensorFileError
from edgefl.strictjson import Fields, parse

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 1 << 16
MAX_RANK = 16
MAX_BYTES = (1 << 31) - 1

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("<i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("<u1"),
    "BOOL": np.dtype("?"),
}
_CODES = {dtype.newbyteorder("="): code for code, dtype in DTYPES.items()}
_METADATA = "__metadata__"

Array = npt.NDArray[Any]


def write_tensors(arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """Encode named arrays; the same arrays in any order and byte order give the same bytes.

    Raises:
        TensorFileError: a dtype the layout has no code for, a reserved name, or more than `MAX_BYTES`.
    """
    header: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
    chunks: list[bytes] = []
    offset = 0
    for name in sorted(arrays):
        array, code = _encodable(name, arrays[name])
        header[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        if offset > MAX_BYTES:
            raise TensorFileError(f"tensors up to {name!r} take {offset} bytes, allowed {MAX_BYTES}")
        chunks.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def read_tensors(data: bytes | memoryview) -> dict[str, Array]:
    """Decode to name -> array (copies, native byte order), sorted by name.

    Raises:
        TensorFileError: the bytes are not the layout; nothing is allocated for sizes the file cannot hold.
    """
    header, body = _split(data)
    rows = {name: _row(name, Fields(value, name, TensorFileError)) for name, value in header.items()}
    _check_cover(rows, len(body))
    return {name: _cut(body, *rows[name]) for name in sorted(rows)}


def read_metadata(data: bytes | memoryview) -> dict[str, str]:
    """The file's free `__metadata__` strings, empty when there are none."""
    header = _header(data)
    return Fields(header, "header", TensorFileError).texts(_METADATA) if _METADATA in header else {}


def _encodable(name: str, value: Array) -> tuple[Array, str]:
    array = np.asarray(value)
    code = _CODES.get(array.dtype.newbyteorder("="))
    if code is None:
        raise TensorFileError(f"tensor {name!r} has dtype {array.dtype}, allowed {_names()}")
    if name == _METADATA:
        raise TensorFileError(f"tensor name {_METADATA!r} is reserved by the layout")
    return array.astype(DTYPES[code], order="C", copy=False), code


def _names() -> str:
    return ", ".join(str(dtype.newbyteorder("=")) for dtype in DTYPES.values())


def _header(data: bytes | memoryview) -> dict[str, Any]:
    if len(data) < 8:
        raise TensorFileError(f"tensor file has {len(data)} bytes, the header length alone takes 8")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        allowed = min(MAX_HEADER_BYTES, len(data) - 8)
        raise TensorFileError(f"tensor header declares {length} bytes, allowed {allowed}")
    header = parse(bytes(data[8 : 8 + length]), TensorFileError, "tensor header")
    if not isinstance(header, dict):
        raise TensorFileError("tensor header is no JSON object")
    return header


def _split(data: bytes | memoryview) -> tuple[dict[str, Any], memoryview]:
    header = _header(data)
    if _METADATA in header:
        Fields(header, "header", TensorFileError).texts(_METADATA)
        del header[_METADATA]
    if len(header) > MAX_TENSORS:
        raise TensorFileError(f"tensor file has {len(header)} tensors, allowed {MAX_TENSORS}")
    return header, memoryview(data)[8 + int.from_bytes(data[:8], "little") :]


def _row(name: str, fields: Fields) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """dtype, shape, start and stop of one tensor, in agreement with one another."""
    fields.only("dtype", "shape", "data_offsets")
    dtype = DTYPES[fields.choice("dtype", DTYPES)]
    shape = fields.integers("shape", 0, MAX_BYTES, most=MAX_RANK)
    offsets = fields.integers("data_offsets", 0, MAX_BYTES, most=2)
    size = dtype.itemsize
    for n in shape:
        size *= n
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise TensorFileError(
            f"tensor {name!r} of {dtype}{list(shape)} takes {size} bytes, declared {list(offsets)}"
        )
    return dtype, shape, offsets[0], offsets[1]


def _check_cover(rows: Mapping[str, tuple[Any, Any, int, int]], size: int) -> None:
    """Insist that tensors cover the data exactly: no gap to hide bytes in, no overlap, no truncation."""
    end = 0
    for name, (_, _, start, stop) in sorted(rows.items(), key=lambda row: row[1][2:]):
        if start != end:
            raise TensorFileError(f"tensor {name!r} starts at byte {start}, expected {end}")
        end = stop
    if end != size:
        raise TensorFileError(f"tensors take {end} bytes, the file has {size} for them")


def _cut(body: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], start: int, stop: int) -> Array:
    raw = np.frombuffer(body[start:stop], np.uint8)
    if dtype.kind == "b" and raw.size and raw.max() > 1:
        raise TensorFileError(f"boolean tensor at byte {start} has values other than 0 and 1")
    return np.frombuffer(raw.tobytes(), dtype).astype(dtype.newbyteorder("=")).reshape(shape)
