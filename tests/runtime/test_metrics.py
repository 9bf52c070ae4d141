# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from edgefl.runtime.metrics import correct

pytestmark = pytest.mark.device


def test_softmax_takes_the_largest_logit() -> None:
    found = correct("softmax_cross_entropy", np.array([[0, 2, 1], [5, 1, 1]]), np.array([1, 2]))

    assert found is not None
    assert found.tolist() == [True, False]


def test_softmax_counts_each_position_of_a_sequence() -> None:
    found = correct("softmax_cross_entropy", np.zeros((2, 5, 3)), np.zeros((2, 5), np.int32))

    assert found is not None
    assert found.shape == (2, 5)


def test_sigmoid_takes_the_sign() -> None:
    found = correct("sigmoid_cross_entropy", np.array([[-1.0, 0.3]]), np.array([[0.0, 0.0]]))

    assert found is not None
    assert found.tolist() == [[True, False]]


@pytest.mark.parametrize("loss", ["mean_squared_error", "my_loss"])
def test_other_losses_have_no_accuracy(loss: str) -> None:
    assert correct(loss, np.zeros((2, 1)), np.zeros((2, 1))) is None
