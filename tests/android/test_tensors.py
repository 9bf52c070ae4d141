# SPDX-License-Identifier: Apache-2.0
"""Tensors as bytes: Java writes what Python writes, and refuses what Python refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import strategies as st

from edgefl.errors import TensorFileError
from edgefl.tensorfile import DTYPES, read_tensors, write_tensors

VECTORS = Path(__file__).parents[1] / "conformance" / "vectors"
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda n: n != "__metadata__")
arrays = hnp.arrays(
    st.sampled_from([d.newbyteorder("=") for d in DTYPES.values()]), hnp.array_shapes(min_dims=0, max_side=3)
)


def rewritten(jvm: Any, dev: Any, data: bytes) -> bytes:
    """What Java makes of a pack that it has read."""
    return bytes(
        dev.TensorPack.write(dev.TensorPack.read(jvm.JArray(jvm.JByte)(np.frombuffer(data, np.int8))))
    )


@hypothesis.given(st.dictionaries(names, arrays, max_size=4))
@hypothesis.settings(max_examples=60)
def test_java_gives_back_what_python_wrote(jvm: Any, dev: Any, tensors: dict[str, Any]) -> None:
    data = write_tensors(tensors)
    assert rewritten(jvm, dev, data) == data


def test_names_are_sorted_as_python_sorts_them(jvm: Any, dev: Any) -> None:
    # In UTF-16 the last of these comes before the second.
    data = write_tensors(
        {name: np.zeros(1, np.float32) for name in ("a", "\uffee", "\U0001f600", 'é\n"\\\x01')}
    )
    assert rewritten(jvm, dev, data) == data


def test_large_tensors_cross(jvm: Any, dev: Any) -> None:
    data = write_tensors({"x": np.arange(4 << 20, dtype=np.float32)})
    assert rewritten(jvm, dev, data) == data


def pack(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


ROW = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        (1 << 62).to_bytes(8, "little"),
        pack([]),
        pack(b'{"a":1,"a":1}'),
        pack(b"{" * 40),
        pack(b'{"a":' + b"[" * 40),
        pack(b"\xff{}"),
        pack({}, b"x"),
        pack({"a": ROW}, b"abc"),
        pack({"a": {**ROW, "dtype": "F31"}}, b"abcd"),
        pack({"a": {**ROW, "more": 1}}, b"abcd"),
        pack({"a": {**ROW, "shape": [2]}}, b"abcd"),
        pack({"a": {**ROW, "shape": [-1]}}, b"abcd"),
        pack({"a": {**ROW, "shape": [1.0]}}, b"abcd"),
        pack({"a": {**ROW, "shape": [2**31 - 1] * 9}}, b"abcd"),
        pack({"a": {**ROW, "data_offsets": [1, 5]}}, b"xabcd"),
        pack({"a": ROW, "b": ROW}, b"abcd"),
        pack({"a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\x02"),
        pack({"__metadata__": {"a": 1}}),
    ],
)
def test_both_refuse(jvm: Any, dev: Any, data: bytes) -> None:
    with pytest.raises(TensorFileError):
        read_tensors(data)
    with pytest.raises(jvm.JClass("dev.edgefl.PackException")):
        rewritten(jvm, dev, data)


def test_a_tensor_says_what_it_has(jvm: Any, dev: Any) -> None:
    values = jvm.JArray(jvm.JFloat)(np.arange(6, dtype=np.float32))
    tensor = dev.Tensor.of(values, jvm.JArray(jvm.JLong)([2, 3]))
    made = jvm.JClass("java.util.HashMap")()
    made.put("x", tensor)
    expected = write_tensors({"x": np.arange(6, dtype=np.float32).reshape(2, 3)})
    assert bytes(dev.TensorPack.write(made)) == expected
    with pytest.raises(jvm.JClass("dev.edgefl.PackException")):
        dev.Tensor.of(values, jvm.JArray(jvm.JLong)([7]))


def test_java_agrees_with_the_vectors(jvm: Any, dev: Any) -> None:
    index = json.loads((VECTORS / "index.json").read_text())
    for row in index["packs"]:
        data = (VECTORS / row["file"]).read_bytes()
        assert rewritten(jvm, dev, data) == data, row["name"]
    for name in index["refused"]:
        with pytest.raises(jvm.JClass("dev.edgefl.PackException")):
            rewritten(jvm, dev, (VECTORS / name).read_bytes())
