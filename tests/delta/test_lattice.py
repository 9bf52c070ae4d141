# SPDX-License-Identifier: Apache-2.0
"""Sums of multiples of powers of two: the same bits in any order, and nothing believed on the way."""

from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl.delta import lattice
from edgefl.delta.frame import HEADER
from edgefl.errors import DeltaBase, DeltaChecksum, DeltaError, DeltaOption, DeltaTooLarge, DeltaTruncated

pytestmark = pytest.mark.device

SCHEMA = b"schema-8"


def multiples(seed: int, size: int, unit: float, largest: int, density: float = 0.5) -> np.ndarray:
    random = np.random.default_rng(seed)
    whole = random.integers(-largest, largest + 1, size) * (random.random(size) < density)
    return whole * np.float64(unit)


def total(body: bytes, size: int) -> np.ndarray:
    made = np.zeros(size)
    for update in lattice.decode_moves(body, schema_id=SCHEMA, size=size, versions=range(100)):
        made[update.indices] += update.values
    return made


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.integers(-90, 40),
    st.sampled_from([1, 3, 200, 2**20, 2**24 - 1, 2**24, 2**30, 2**52]),
    st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_moves_arrive_bit_for_bit(seed, size, exponent, largest, density):
    moves = multiples(seed, size, 2.0**exponent, largest, density)

    body = lattice.encode_moves(moves, 2.0**exponent, schema_id=SCHEMA, base_version=3)

    np.testing.assert_array_equal(total(body, size), moves)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(-12, 3)), min_size=2, max_size=8))
@settings(max_examples=60, deadline=None)
def test_steps_add_up_to_the_same_bits_in_any_order(steps):
    start = np.random.default_rng(1).normal(size=64).astype(np.float32)
    moves = [multiples(seed, 64, 2.0**exponent, 5000) for seed, exponent in steps]

    forwards, backwards = np.zeros(64), np.zeros(64)
    for move in moves:
        forwards += move
    for move in reversed(moves):
        backwards += move

    np.testing.assert_array_equal(
        lattice.weights(start, forwards).view(np.uint32), lattice.weights(start, backwards).view(np.uint32)
    )


def test_subnormal_parameters_become_zero():
    start = np.array([1e-40, -1e-40, 1e-30, -0.0], np.float32)

    made = lattice.weights(start, np.zeros(4))

    np.testing.assert_array_equal(made, np.array([0, 0, 1e-30, 0], np.float32))


def test_fingerprint_is_of_the_little_endian_bytes():
    vector = np.array([1, 2], np.float32)

    assert lattice.fingerprint(vector) == lattice.fingerprint(vector.astype(">f4"))
    assert lattice.fingerprint(vector) != lattice.fingerprint(vector[::-1])


@pytest.mark.parametrize("moves", [[0.3], [float("nan")], [float("inf")], [2.0**53]])
def test_what_is_no_exact_multiple_is_not_encoded(moves):
    with pytest.raises(DeltaOption):
        lattice.encode_moves(np.array(moves), 1.0, schema_id=SCHEMA, base_version=0)


def body_of(count: int = 1) -> bytes:
    return b"".join(
        lattice.encode_moves(multiples(i, 50, 0.5, 9), 0.5, schema_id=SCHEMA, base_version=i)
        for i in range(count)
    )


def forged_length(body: bytes, length: int) -> bytes:
    head = bytearray(body)
    struct.pack_into("<I", head, HEADER.size - 4, length)
    return bytes(head[:-4]) + struct.pack("<I", zlib.crc32(head[:-4]))


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        (b"", DeltaTruncated),
        (b"EFLU", DeltaTruncated),
        (body_of()[:-1], DeltaTruncated),
        (body_of() + b"x", DeltaTruncated),
        (body_of() + body_of()[:40], DeltaTruncated),
        (forged_length(body_of(), 0), DeltaTruncated),
        (forged_length(body_of(), 2**32 - 1), DeltaTruncated),
        (body_of(65), DeltaTooLarge),
        (lattice.encode_moves(np.ones(50), 1.0, schema_id=SCHEMA, base_version=200), DeltaBase),
        (body_of(2)[:-4] + b"abcd", DeltaChecksum),
    ],
)
def test_bodies_that_are_no_sequence_of_frames_are_refused(attack, error):
    with pytest.raises(error):
        list(lattice.decode_moves(attack, schema_id=SCHEMA, size=50, versions=range(100)))


@given(st.binary(max_size=200), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_damage_is_an_update_or_a_delta_error(noise, at):
    body = body_of(2)
    damaged = body[:at] + noise + body[at + len(noise) :]

    try:
        found = list(lattice.decode_moves(damaged, schema_id=SCHEMA, size=50, versions=range(100)))
    except DeltaError:
        return

    assert all(np.isfinite(update.values).all() for update in found)


def test_many_values_in_few_bytes_need_memory_for_one_frame(size=200_000):
    body = b"".join(
        lattice.encode_moves(np.ones(size), 1.0, schema_id=SCHEMA, base_version=i) for i in range(64)
    )
    assert len(body) < 64 * 400

    tracemalloc.start()
    for update in lattice.decode_moves(body, schema_id=SCHEMA, size=size, versions=range(64)):
        del update
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 80 * size
