# SPDX-License-Identifier: Apache-2.0
"""Frames damaged at random, with the checksum repaired so that the damage reaches the parser."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest

from edgefl.delta import Limits, decode, encode
from edgefl.errors import DeltaError

ID = b"schema-8"
SIZE = 20_000
ROUNDS = 700


def originals() -> list[bytes]:
    rng = np.random.default_rng(0)
    vector = rng.standard_t(2, SIZE).astype(np.float32)
    options = [
        {"mode": "topk", "density": 0.01},
        {"mode": "topk", "density": 0.3},
        {"mode": "unbiased", "density": 0.02, "rng": 1, "meta": {"loss": 1.0}},
        {"mode": "ternary", "density": 0.05, "coders": ("deflate",)},
        {"mode": "topk", "density": 0.01, "compact": False},
        {"mode": "dense4", "rng": 1},
        {"mode": "float16"},
        {"mode": "subset", "density": 0.1, "rng": 1},
        {"tensors": [(0, 9000), (9000, 9050), (9050, SIZE)], "whole_below": 100},
    ]
    return [encode(vector, schema_id=ID, base_version=1, **o).frame for o in options]  # type: ignore[arg-type]


def mutate(frame: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(frame[:-4])
    for _ in range(rng.integers(1, 4)):
        action, at = (
            rng.integers(0, 5),
            int(rng.integers(0, min(len(data), 200 if rng.random() < 0.7 else len(data)))),
        )
        if action == 0:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif action == 1:
            data[at] = int(rng.choice([0, 1, 127, 128, 255]))
        elif action == 2:
            del data[at : at + int(rng.integers(1, 8))]
        elif action == 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 8)))
        else:
            data[at : at + 4] = rng.bytes(4)
    if len(data) >= 28:
        data[24:28] = (len(data) + 4).to_bytes(4, "little")
    return bytes(data) + zlib.crc32(data).to_bytes(4, "little")


@pytest.mark.parametrize("which", range(9))
def test_damage_is_a_delta_error_or_a_valid_update(which: int) -> None:
    frame, rng = originals()[which], np.random.default_rng(which)
    limits = Limits(ID, SIZE, max_nonzeros=SIZE // 2, max_magnitude=1e4)

    for _ in range(ROUNDS):
        try:
            update = decode(mutate(frame, rng), limits)
        except DeltaError:
            continue
        assert np.all(np.diff(update.indices) > 0) and len(update.indices) <= SIZE // 2
        assert len(update.indices) == 0 or 0 <= update.indices[0] <= update.indices[-1] < SIZE
        assert np.all(np.abs(update.values) <= 1e4)


def test_damage_costs_no_memory() -> None:
    frame, rng = originals()[1], np.random.default_rng(9)
    mutants = [mutate(frame, rng) for _ in range(300)]
    limits = Limits(ID, SIZE, max_nonzeros=SIZE // 2)

    tracemalloc.start()
    for mutant in mutants:
        try:
            decode(mutant, limits)
        except DeltaError:
            continue
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 100 * SIZE
