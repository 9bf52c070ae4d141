# SPDX-License-Identifier: Apache-2.0
"""The error function, which NumPy lacks.

Rational approximations of W. J. Cody, "Rational Chebyshev approximations for the error function",
Mathematics of Computation 23 (1969), evaluated in the input's dtype (float16 in float32).
"""

from __future__ import annotations

import numpy as np

from edgefl.graph.model import Array

_SMALL = 0.46875  # below: erf(x) = x R(x^2); above: erf(x) = 1 - exp(-x^2) R(x)
_A = (
    1.85777706184603153e-1,
    3.16112374387056560,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_C = (
    2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
    2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
    1.23033935479799725e3,
)  # fmt: skip
_D = (
    1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
    3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
)  # fmt: skip


def erf(x: Array) -> Array:
    """erf(x), within a few units in the last place of the dtype."""
    if x.dtype == np.float16:
        return erf(x.astype(np.float32)).astype(np.float16)
    magnitude = np.minimum(np.abs(x), x.dtype.type(6))
    square = magnitude * magnitude
    near = magnitude * _horner(_A, square) / _horner(_B, square)
    far = x.dtype.type(1) - np.exp(-square) * _horner(_C, magnitude) / _horner(_D, magnitude)
    return np.asarray(np.copysign(np.where(magnitude <= _SMALL, near, far), x))


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + x.dtype.type(coefficient)
    return total
