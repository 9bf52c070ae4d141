# SPDX-License-Identifier: Apache-2.0
"""How good a model is on examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Metrics:
    """What `Trainer.evaluate` found.

    Attributes:
        loss: mean over the examples.
        accuracy: part of the labels predicted right, in `[0, 1]`; None where the loss has no such notion.
        examples: how many examples it was measured on.
    """

    loss: float
    accuracy: float | None
    examples: int


def correct(loss: str, output: Array, labels: Array) -> Array | None:
    """Which labels `output` (logits) predicts right: a boolean per label, None where that has no meaning.

    Softmax cross-entropy takes the class of the largest logit, sigmoid cross-entropy the sign.
    """
    if loss == "softmax_cross_entropy":
        return np.asarray(np.argmax(output, axis=-1) == labels)
    if loss == "sigmoid_cross_entropy":
        return np.asarray((output > 0) == (labels > 0.5))
    return None
