# SPDX-License-Identifier: Apache-2.0
"""Who gets the places of a round: chances as they should be, whoever comes first."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from edgefl.server_stub.selection import (
    SELECTIONS,
    Candidate,
    by_examples,
    labels_of,
    longest_waiting,
    pairs,
    uniform,
    wanted,
)

FLEET = [Candidate(f"d{i}", examples=1 + i, served=None if i < 2 else 100.0 - i) for i in range(8)]


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_draw_follows_from_its_seed_and_who_is_there(name):
    select = SELECTIONS[name]
    shuffled = [FLEET[i] for i in np.random.default_rng(0).permutation(len(FLEET))]

    drawn = select(FLEET, 3, [7, 1])

    assert drawn == select(shuffled, 3, [7, 1]) and len(set(drawn)) == 3
    assert any(select(FLEET, 3, [7, n]) != drawn for n in range(2, 30))
    assert sorted(select(FLEET, 99, [1])) == sorted(c.device for c in FLEET)
    assert select([], 3, [1]) == ()


def test_all_have_the_same_chance():
    draws = 2000
    counts = Counter(name for seed in range(draws) for name in uniform(FLEET, 2, [seed]))

    expected = 2 * draws / len(FLEET)
    assert stats.chisquare([counts[c.device] for c in FLEET], expected).pvalue > 1e-4


def test_chances_are_as_the_examples():
    draws = 2000
    counts = Counter(by_examples(FLEET, 1, [seed])[0] for seed in range(draws))

    total = sum(c.examples for c in FLEET)
    expected = [draws * c.examples / total for c in FLEET]
    assert stats.chisquare([counts[c.device] for c in FLEET], expected).pvalue > 1e-4


def test_those_who_waited_longest_come_first():
    assert set(longest_waiting(FLEET, 2, [0])) == {"d0", "d1"}
    assert longest_waiting(FLEET, 5, [0])[2:] == ("d7", "d6", "d5")
    firsts = {longest_waiting(FLEET, 1, [seed])[0] for seed in range(20)}
    assert firsts == {"d0", "d1"}


def test_labels():
    mine = labels_of("tflite litert 2.3", "app=1.4,note=a=b")

    assert mine == {"app": "1.4", "target": "tflite", "note": "a=b"} and pairs("") == {}
    assert wanted(mine, {}) and wanted(mine, {"app": "1.4", "target": "tflite"})
    assert not wanted(mine, {"app": "1.5"}) and not wanted(mine, {"who": ""})
