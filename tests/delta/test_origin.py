# SPDX-License-Identifier: Apache-2.0
"""The byte of a frame that tells whose parameters an update starts from."""

from __future__ import annotations

import numpy as np

from edgefl.delta import Limits, decode, encode
from edgefl.delta.origin import UNKNOWN, origin, stamp, stamp_of, stamped


def test_a_stamp_changes_no_value_and_no_length() -> None:
    vector = np.random.default_rng(1).normal(size=50).astype(np.float32)
    frame = encode(vector, schema_id=bytes(8), base_version=3, density=0.5, meta={"loss": 1.0}).frame
    base = origin(vector)

    marked = stamped(frame, base)

    limits = Limits(schema_id=bytes(8), size=50, versions=(3,))
    before, after = decode(frame, limits), decode(marked, limits)
    assert len(marked) == len(frame) and after.meta == before.meta
    np.testing.assert_array_equal(after.dense(), before.dense())
    assert (stamp_of(frame), stamp_of(marked)) == (UNKNOWN, stamp(base))
    assert stamped(marked, base) == marked


def test_stamps_follow_from_the_fingerprint_and_are_never_unknown() -> None:
    assert [stamp(f"{n:032x}") for n in (0, 1, 254, 255, 256)] == [1, 2, 255, 1, 2]
    zeros = np.zeros(3, np.float32)
    assert origin(zeros) == origin(-zeros), "devices that add steps to zeros hold no negative ones"
