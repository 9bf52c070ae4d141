# SPDX-License-Identifier: Apache-2.0
"""The codecs written down from papers: each decodes what it encodes, and its bits are the paper's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers import dense, plain, sparse
from benchmarks.peers.__main__ import CODECS
from benchmarks.peers.bits import Reader, gamma_length, rice, write
from benchmarks.peers.codec import Codec, flat, measure, nmse
from benchmarks.tables import between, markdown

SHAPES = {"a.weight": (120, 200), "a.bias": (120,), "b.weight": (3, 40, 5, 5), "b.scale": ()}


@pytest.fixture(scope="module")
def update() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.laplace(scale=0.01, size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def named(name: str) -> Codec:
    return next(codec for codec in CODECS if codec.name.startswith(name))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_arrives_has_the_shapes_that_were_sent(codec, update):
    received = codec.decode(codec.encode(update), SHAPES)

    assert {name: value.shape for name, value in received.items()} == SHAPES
    assert all(np.isfinite(value).all() for value in received.values())


@pytest.mark.parametrize("name", ["npz", "npz, compressed", "safetensors"])
def test_files_are_lossless(name, update):
    assert measure("x", update, named(name)).nmse == 0


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_elias_gamma_reads_what_it_wrote(numbers):
    values = np.array(numbers)
    bits = write(values, gamma_length(values))

    reader = Reader(np.packbits(bits).tobytes())
    assert [reader.gamma() for _ in numbers] == numbers
    assert len(bits) == sum(2 * int(math.log2(n)) + 1 for n in numbers)


@given(st.lists(st.tuples(st.integers(0, 50_000), st.booleans()), min_size=1, max_size=30), st.integers(1, 9))
def test_golomb_reads_what_it_wrote(pairs, b):
    numbers, tails = (np.array(column) for column in zip(*pairs, strict=True))
    bits = rice(numbers, tails, b)

    reader = Reader(np.packbits(bits).tobytes())
    assert [(reader.rice(b), bool(reader.take(1))) for _ in pairs] == pairs
    assert len(bits) == sum((n >> b) + 2 + b for n in numbers)


def test_stc_sends_the_largest_percent_with_one_magnitude(update):
    vector = flat(update)
    sent = flat(named("STC").decode(named("STC").encode(update), SHAPES))

    kept = np.flatnonzero(sent)
    count = round(0.01 * vector.size)
    assert set(kept) == set(np.argsort(-np.abs(vector))[:count])
    np.testing.assert_array_equal(np.sign(sent[kept]), np.sign(vector[kept]))
    np.testing.assert_allclose(np.abs(sent[kept]), np.abs(vector[kept]).mean(), rtol=1e-6)


def test_stc_costs_what_the_paper_says(update):
    bits = 8 * len(named("STC").encode(update)) / round(0.01 * flat(update).size)

    # 8.108 bits of position at b* = 6 for independent ones, and a sign.
    assert sparse.golomb_parameter(0.01) == 6
    assert bits == pytest.approx(9.108, rel=0.08)


def test_gamma_rounds_to_the_nearest_level(update):
    codec = named("Elias gamma")
    vector, sent = flat(update), flat(codec.decode(codec.encode(update), SHAPES))

    step = np.abs(sent[sent != 0]).min()
    assert np.abs(vector - sent).max() <= step / 2 * (1 + 1e-6)


def test_threelc_rounds_each_tensor_to_three_values(update):
    codec = named("3LC")
    received = codec.decode(codec.encode(update), SHAPES)

    for name, value in update.items():
        scale = np.float32(np.abs(value).max() * 1.75)
        np.testing.assert_array_equal(received[name], np.rint(value / scale) * scale)


@pytest.mark.parametrize("size", [1, 2, 13, 14, 15, 29])
def test_threelc_shortens_runs_of_zeros(size):
    update = {"zeros": np.zeros(5 * size, np.float32), "one": np.ones(1, np.float32)}
    codec = named("3LC")
    sent = codec.encode(update)

    received = codec.decode(sent, {name: value.shape for name, value in update.items()})
    assert not received["zeros"].any()
    assert len(sent) == 2 * 8 + -(-size // 14) + 1


def test_tff_keeps_small_tensors_and_rounds_large_ones_within_a_level(update):
    codec = named("8-bit uniform")
    sent = codec.encode(update)
    received = codec.decode(sent, SHAPES)

    weight = update["a.weight"]
    assert np.abs(received["a.weight"] - weight).max() <= (weight.max() - weight.min()) / 255 * 1.001
    np.testing.assert_array_equal(received["a.bias"], update["a.bias"])
    assert len(sent) == 24_000 + 8 + 4 * (120 + 3000 + 1)


def test_hadamard_is_its_own_inverse_and_keeps_length():
    vector = np.random.default_rng(1).standard_normal(1024)

    turned = dense.hadamard(vector)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(vector))
    np.testing.assert_allclose(dense.hadamard(turned), vector, atol=1e-12)


def test_drive_has_the_error_its_paper_proves(update):
    found = measure("x", update, named("DRIVE"))

    # pi / 2 - 1 for the unbiased scale, and one bit per parameter.
    assert found.nmse == pytest.approx(math.pi / 2 - 1, rel=0.03)
    assert found.times_smaller == pytest.approx(32, rel=0.03)


def test_sign_has_one_magnitude_per_tensor(update):
    received = named("signSGD").decode(named("signSGD").encode(update), SHAPES)

    for name, value in update.items():
        np.testing.assert_allclose(np.abs(received[name]), np.abs(value).mean(), rtol=1e-5)
        np.testing.assert_array_equal(np.signbit(received[name]), np.signbit(value))


def test_powersgd_is_exact_for_matrices_of_its_rank():
    random = np.random.default_rng(2)
    matrix = random.standard_normal((60, 4)) @ random.standard_normal((4, 50))
    update = {"m": matrix.astype(np.float32), "v": np.ones(7, np.float32)}

    sent = dense.power_encode(4, update)
    received = dense.power_decode(4, sent, {"m": (60, 50), "v": (7,)})
    assert nmse(update, received) < 1e-10
    assert len(sent) == 4 * (4 * (60 + 50) + 7)


def test_half_and_int8_lose_what_their_width_loses(update):
    assert measure("x", update, named("float16")).nmse < 1e-6
    assert measure("x", update, named("int8")).nmse < 1e-2
    assert plain.edgefl("dense8").name == "edgefl dense8"


def test_tables_go_between_their_marks():
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n"

    made = between(text, "t", markdown(["x", "y"], [["k", 1]]))
    assert made == "a\n<!-- t -->\n\n| x | y |\n| --- | ---: |\n| k | 1 |\n\n<!-- /t -->\nb\n"
    with pytest.raises(ValueError, match="no place for 'u'"):
        between(text, "u", "")
