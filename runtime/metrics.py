# SPDX-License-Identifier: Apache-2.0
"""How good a model is on examples."""

from __future__ import annotations

from dataclasses import dataclass


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
