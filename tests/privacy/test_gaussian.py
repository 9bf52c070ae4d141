# SPDX-License-Identifier: Apache-2.0
"""Noise: of the right shape, exact in its steps, the same for the same key, and never NumPy's."""

from __future__ import annotations

import hashlib
import os

import numpy as np
import pytest
from scipy import stats

from edgefl.privacy.entropy import Keystream
from edgefl.privacy.gaussian import SIGMA, gaussian

COUNT = 1_000_000
ALARM = 1e-9
"""Chance with which a right sampler fails a test; keys are fixed, so it either always does or never."""


@pytest.fixture(scope="module")
def deviates() -> np.ndarray:
    return gaussian(COUNT, Keystream(b"noise"))


def test_all_of_it_is_normal(deviates):
    assert deviates.dtype == np.int64 and deviates.shape == (COUNT,)
    assert stats.kstest(deviates / SIGMA, "norm").pvalue > ALARM


def test_its_tails_are_as_heavy_as_they_must_be(deviates):
    edges = np.array([-np.inf, -4.5, -4, -3.5, -3, -2, -1, 0, 1, 2, 3, 3.5, 4, 4.5, np.inf])
    found = np.histogram(deviates / SIGMA, np.clip(edges, -1e9, 1e9))[0]
    expected = COUNT * np.diff(stats.norm.cdf(edges))

    assert stats.chisquare(found, expected).pvalue > ALARM


def test_neither_parity_nor_sign_nor_neighbour_tells_anything(deviates):
    n = np.sqrt(COUNT)
    for bits in (deviates & 1, (deviates >> 1) & 1, deviates > 0):
        assert abs(bits.mean() - 0.5) < 3.1 / n
    scaled = deviates / SIGMA
    assert abs((scaled[1:] * scaled[:-1]).mean()) < 6.1 / n
    assert abs((scaled**2).mean() - 1) < 6.1 * np.sqrt(2) / n


def test_whole_parts_have_the_chances_of_the_proposal(deviates):
    k = np.arange(6)
    chances = np.diff(stats.norm.cdf(np.append(k, 6))) * 2
    found = np.bincount(np.minimum(np.abs(deviates) // SIGMA, 6).astype(int), minlength=7)[:6]

    assert np.all(np.abs(found - COUNT * chances) < 6.1 * np.sqrt(COUNT * chances) + 1)


def test_the_same_key_gives_the_same_noise_and_another_call_does_not():
    stream = Keystream(b"key")
    first, second = gaussian(1000, stream), gaussian(1000, stream)
    assert np.array_equal(first, gaussian(1000, Keystream(b"key")))
    assert not np.array_equal(first, second)
    assert hashlib.sha256(first.astype("<i8").tobytes()).hexdigest() == (
        "9d31bc246af567845c5f5396371b7cfd57f0e6bcbbce035b4dea62d1bee5a9d8"
    )


def test_the_system_is_asked_for_every_byte():
    asked = []

    def counted(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    assert gaussian(10, counted).shape == (10,) and sum(asked) >= 240
    assert gaussian(0, counted).shape == (0,)


def test_shake_256_is_the_standards():
    # FIPS 202's empty message, first 32 bytes.
    assert hashlib.shake_256(b"").hexdigest(32) == (
        "46b9dd2b0ba88d13233b3feb743eeb243fcd52ea62b81b82b50c27646ed5762f"
    )
    message = (3).to_bytes(8, "little") + b"key" + (1).to_bytes(8, "little")
    assert Keystream(b"key")(16) == hashlib.shake_256(message).digest(16)
