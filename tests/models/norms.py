# SPDX-License-Identifier: Apache-2.0
"""How far gradients are apart.

Errors are norms: of the difference, relative to the reference, one parameter at a time. The gradient of some
parameters is nothing but rounding noise (a key's bias in attention, a bias before a normalisation), so the
reference's norm has a floor: `FLOOR` times the share that a parameter of that size would have of the norm of
the whole gradient. With `GRADIENT` allowed, float32 may be off by 1e-6 of that share there, as sums of terms
that cancel are. What the floor hides in float32 a comparison in float64 shows, with a floor a hundred times
lower and a limit ten times lower.
"""

from __future__ import annotations

import numpy as np

from tests.models.reference import Values
from tests.models.zoo import Array

FLOOR, FLOOR_DOUBLE = 1e-2, 1e-4
GRADIENT, DOUBLE, TRAJECTORY = 1e-4, 1e-5, 1e-3


def gradient_errors(got: Values, wanted: Values, floor: float) -> dict[str, float]:
    """Each parameter's error; see the module's docstring."""
    assert set(got) == set(wanted), set(got) ^ set(wanted)
    whole = norm(wanted)
    count = sum(v.size for v in wanted.values())
    return {
        name: _distance(got[name], want)
        / max(float(np.linalg.norm(want)), floor * whole * float(np.sqrt(want.size / count)), 1e-300)
        for name, want in wanted.items()
    }


def norm(values: Values) -> float:
    """Of all tensors together."""
    return float(np.sqrt(sum(float(np.sum(np.square(v, dtype=np.float64))) for v in values.values())))


def _distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(np.subtract(a, b, dtype=np.float64)))
