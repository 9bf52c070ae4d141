# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from edgefl.delta import Limits, decode, encode, inspect_frame, tensor_norms
from edgefl.errors import DeltaError
from edgefl.parameters import Schema


def test_a_frame_is_taken_apart_to_the_last_byte() -> None:
    vector = np.random.default_rng(0).laplace(size=100_000).astype(np.float32)
    encoded = encode(vector, schema_id=b"schema-8", base_version=9, meta={"a": 1}, mode="unbiased", rng=0)

    anatomy = inspect_frame(encoded.frame)

    assert (anatomy.size, anatomy.base_version, anatomy.unbiased) == (len(encoded.frame), 9, True)
    assert anatomy.nonzeros == len(encoded.indices)
    assert anatomy.framing + len('{"a":1}') + sum(s.coded for s in anatomy.sections) == anatomy.size
    assert anatomy.bits_per_nonzero == 8 * anatomy.size / anatomy.nonzeros
    assert anatomy.norm == pytest.approx(np.linalg.norm(encoded.values.astype(float)))
    assert anatomy.largest == np.abs(encoded.values).max()


def test_streams_show_their_coder_sizes_and_entropy() -> None:
    vector = np.random.default_rng(0).laplace(size=1_000_000).astype(np.float32)
    frame = encode(vector, schema_id=b"schema-8", base_version=9).frame

    (section,) = inspect_frame(frame).sections

    gaps, gap_bits, signs = section.streams[:3]
    assert section.kind == "sparse" and [s.name for s in section.streams][:2] == ["gaps", "gap bits"]
    assert gaps.coder in ("deflate", "zstd") and gaps.decoded == 10_000
    assert gaps.entropy < gaps.coded < 1.03 * gaps.entropy
    assert gap_bits.coder == "stored" and signs.decoded == 1250


def test_a_broken_frame_is_not_inspected() -> None:
    with pytest.raises(DeltaError):
        inspect_frame(b"EFLU")


def test_limits_can_be_given() -> None:
    frame = encode(np.ones(10, np.float32), schema_id=b"schema-8", base_version=9).frame

    with pytest.raises(DeltaError):
        inspect_frame(frame, Limits(b"schema-8", 9))


def test_norms_are_told_by_tensor() -> None:
    arrays = {
        "a": np.array([3, 4], np.float32),
        "b": np.zeros(3, np.float32),
        "c": np.array([-5], np.float32),
    }
    schema = Schema.of_arrays(arrays)
    frame = encode(schema.flatten(arrays), schema_id=schema.id, base_version=0, mode="float32").frame

    assert tensor_norms(decode(frame, Limits(schema.id, schema.size)), schema) == {
        "a": 5.0,
        "b": 0.0,
        "c": 5.0,
    }
