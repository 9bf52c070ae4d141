# SPDX-License-Identifier: Apache-2.0
"""How good a model is on examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Head
from edgefl.data import counted

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Metrics:
    """What `Trainer.evaluate` found.

    Attributes:
        loss: mean over the examples.
        accuracy: part of the labels predicted right, in `[0, 1]`, of the first output whose loss has such a
            notion; None where none has.
        examples: how many examples it was measured on.
        weighted: both are means by weights that came with the examples.
    """

    loss: float
    accuracy: float | None
    examples: int
    weighted: bool = False


def accuracy(head: Head, output: Array, labels: Array, weight: Array | None = None) -> float | None:
    """Part of the labels that the output of `infer` predicts right, None where that has no meaning.

    Class losses take the class of the highest score, over the labels that count; sigmoid cross-entropy takes
    each output as yes or no.

    Args:
        weight: how much each example's labels count, `[examples]`, over 0; all the same where None.
    """
    weight = np.ones(len(output)) if weight is None else weight
    if head.loss_name == "softmax_cross_entropy":
        return _share(np.argmax(output, axis=-1) == labels, counted(head, labels), weight)
    if head.loss_name == "next_token":
        right = np.argmax(output[:, :-1], axis=-1) == labels[:, 1:]
        return _share(right, counted(head, labels)[:, 1:], weight)
    if head.loss_name == "sigmoid_cross_entropy":
        middle = 0.5 if head.activation == "Sigmoid" else 0.0
        return _share((output > middle) == (labels > 0.5), np.ones(labels.shape, bool), weight)
    return None


def _share(right: Array, counts: Array, weight: Array) -> float | None:
    """Part of what counts that is right, each example by its weight; None where nothing counts."""
    each = weight.astype(np.float64).reshape(-1, *[1] * (right.ndim - 1))
    total = float((each * counts).sum())
    return float((each * (right & counts)).sum()) / total if total else None
