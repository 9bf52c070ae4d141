# SPDX-License-Identifier: Apache-2.0
"""Gradients at every point of the framework's path: the step and the framework, both in float64, at equal
parameters.

Exporters round some constants to float32 (the epsilon of a normalisation), so a unit that lies that near the
kink of a ReLU or the edge of a pool's choice may be on one side in the framework, on the other in the step.
Both are right there. Points at which the two differ are therefore looked at again from beside: parameters
are nudged by float32's resolution, a few times, for both.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.models.double import Batch, DoubleStep
from tests.models.norms import FLOOR_DOUBLE, GRADIENT, gradient_errors
from tests.models.reference import Reference, Values

NUDGE, DRAWS = 1e-7, 8


def along(
    truth: Reference, step: DoubleStep, batch: Batch, start: Values, lr: float, steps: int
) -> Iterator[tuple[float, float]]:
    """For each point of plain SGD by the framework: the largest error of a parameter's gradient there, and
    the smallest such error at nudged points, which are looked for where the first is out of bounds.
    """
    rng = np.random.default_rng(0)
    values: Values = {n: v.astype(np.float64) for n, v in start.items()}
    for _ in range(steps):
        wanted = truth.differentiate(values, batch.data, batch.y)[1]
        here = best = _error(step(values)[1], wanted)
        for _ in range(DRAWS):
            if best < GRADIENT:
                break
            beside = {n: v * (1 + NUDGE * rng.standard_normal(v.shape)) for n, v in values.items()}
            best = min(best, _error(step(beside)[1], truth.differentiate(beside, batch.data, batch.y)[1]))
        yield here, best
        values = {n: v - lr * wanted[n] for n, v in values.items()}


def _error(got: Values, wanted: Values) -> float:
    return max(gradient_errors(got, wanted, FLOOR_DOUBLE).values())
