# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgefl.bundle import Bundle, Manifest
from edgefl.scores import accuracy

pytestmark = pytest.mark.device


@pytest.fixture
def manifest(mlp: Bundle) -> Manifest:
    return mlp.manifest


def test_softmax_takes_the_highest_score(manifest: Manifest) -> None:
    output, labels = np.array([[0, 2, 1], [5, 1, 1]]), np.array([1, 2])

    assert accuracy(manifest.heads[0], output, labels) == 0.5
    smoothed = replace(manifest, loss="softmax_cross_entropy:smoothing=0.1")
    assert accuracy(smoothed.heads[0], output, labels) == 0.5


def test_positions_that_do_not_count_are_left_out(manifest: Manifest) -> None:
    output = np.eye(3)[[[0, 1, 2], [0, 0, 0]]]

    assert accuracy(manifest.heads[0], output, np.array([[0, 1, 0], [-100, -100, 0]])) == 0.75
    assert accuracy(manifest.heads[0], output, np.full((2, 3), -100)) is None


def test_next_token_compares_with_the_token_that_follows(manifest: Manifest) -> None:
    output = np.eye(3)[[[1, 2, 0]]]

    assert accuracy(replace(manifest, loss="next_token").heads[0], output, np.array([[0, 1, 2]])) == 1.0


@pytest.mark.parametrize(("activation", "expected"), [("", 1.0), ("Sigmoid", 0.5)])
def test_sigmoid_is_yes_or_no(manifest: Manifest, activation: str, expected: float) -> None:
    binary = replace(manifest, loss="sigmoid_cross_entropy", activation=activation)

    found = accuracy(binary.heads[0], np.array([[-1.0, 0.3], [0.3, 0.9]]), np.array([[0.0, 1.0], [1.0, 1.0]]))

    assert found == expected


@pytest.mark.parametrize("loss", ["mean_squared_error", "huber:delta=0.5", "my_loss"])
def test_other_losses_have_no_accuracy(manifest: Manifest, loss: str) -> None:
    assert accuracy(replace(manifest, loss=loss).heads[0], np.zeros((2, 1)), np.zeros((2, 1))) is None


@pytest.mark.parametrize(
    ("loss", "output", "labels", "expected"),
    [
        ("softmax_cross_entropy", np.array([[1, 0], [1, 0]]), np.array([0, 1]), 0.75),
        ("softmax_cross_entropy", np.eye(2)[[[0, 1], [0, 0]]], np.array([[0, -100], [0, 1]]), 4 / 5),
        (
            "sigmoid_cross_entropy",
            np.array([[1.0, -1.0], [1.0, 1.0]]),
            np.array([[1.0, 0.0], [0.0, 1.0]]),
            7 / 8,
        ),
    ],
    ids=["classes", "positions", "yes or no"],
)
def test_examples_count_by_their_weight(
    manifest: Manifest, loss: str, output: np.ndarray, labels: np.ndarray, expected: float
) -> None:
    head = replace(manifest, loss=loss).heads[0]

    assert accuracy(head, output, labels, np.array([3.0, 1.0])) == pytest.approx(expected, rel=1e-12)
