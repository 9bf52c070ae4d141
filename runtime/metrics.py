# SPDX-License-Identifier: Apache-2.0
"""How good a model is on examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Head

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Metrics:
    """What `Trainer.evaluate` found.

    Attributes:
        loss: mean over the examples.
        accuracy: part of the labels predicted right, in `[0, 1]`, of the first output whose loss has such a
            notion; None where none has.
        examples: how many examples it was measured on.
    """

    loss: float
    accuracy: float | None
    examples: int


def accuracy(head: Head, output: Array, labels: Array) -> float | None:
    """Part of the labels that the output of `infer` predicts right, None where that has no meaning.

    Class losses take the class of the highest score, over the labels that are not negative; sigmoid
    cross-entropy takes each output as yes or no.
    """
    if head.loss_name == "softmax_cross_entropy":
        return _classes(output, labels)
    if head.loss_name == "next_token":
        return _classes(output[:, :-1], labels[:, 1:])
    if head.loss_name == "sigmoid_cross_entropy":
        middle = 0.5 if head.activation == "Sigmoid" else 0.0
        return float(((output > middle) == (labels > 0.5)).mean())
    return None


def _classes(output: Array, labels: Array) -> float | None:
    counted = labels >= 0
    right = np.argmax(output, axis=-1) == labels
    return float(right[counted].mean()) if counted.any() else None
