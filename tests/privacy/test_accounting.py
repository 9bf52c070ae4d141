# SPDX-License-Identifier: Apache-2.0
"""Epsilon against computations that are not the library's: closed forms, and another library's numbers."""

from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from edgefl.errors import OptionError
from edgefl.privacy import epsilon, noise_multiplier
from edgefl.privacy.accounting import Release, spent

DELTA = 1e-5


def analytic(noise: float, delta: float) -> float:
    """Theorem 8 of Balle and Wang (2018): of one Gaussian release, in closed form but for a root."""

    def over(eps: float) -> float:
        a, b = 1 / (2 * noise), eps * noise
        return norm.cdf(a - b) - math.exp(eps) * norm.cdf(-a - b) - delta

    return brentq(over, 0.0, 200.0, xtol=1e-12)


@pytest.mark.parametrize(("noise", "rounds"), [(0.7, 1), (1.0, 1), (4.0, 10), (20.0, 100)])
def test_rounds_of_everybody_are_one_gaussian(noise, rounds):
    found = epsilon(noise_multiplier=noise, sampling_rate=1.0, rounds=rounds, delta=DELTA)

    # The sum of independent Gaussian losses is that of one release with less noise.
    assert found == pytest.approx(analytic(noise / math.sqrt(rounds), DELTA), rel=1e-3, abs=1e-3)
    assert found >= analytic(noise / math.sqrt(rounds), DELTA) - 1e-9


@pytest.mark.parametrize(("noise", "rate", "rounds"), [(1.0, 0.01, 1000), (1.2, 0.1, 100), (4.0, 0.5, 50)])
def test_drawn_rounds_are_within_another_accountants_bounds(noise, rate, rounds):
    from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

    other = PRVAccountant(
        prvs=PoissonSubsampledGaussianMechanism(noise_multiplier=noise, sampling_probability=rate),
        max_self_compositions=rounds,
        eps_error=1e-3,
        delta_error=1e-10,
    )
    low, _, high = other.compute_epsilon(delta=DELTA, num_self_compositions=[rounds])

    found = epsilon(noise_multiplier=noise, sampling_rate=rate, rounds=rounds, delta=DELTA)
    assert low <= found <= high + 1e-3


@pytest.mark.parametrize(("eps", "rate", "rounds"), [(1.0, 1.0, 5), (8.0, 0.2, 10)])
def test_noise_is_the_least_that_keeps_epsilon(eps, rate, rounds):
    noise = noise_multiplier(epsilon=eps, sampling_rate=rate, rounds=rounds, delta=DELTA)

    found = epsilon(noise_multiplier=noise, sampling_rate=rate, rounds=rounds, delta=DELTA)
    assert eps * (1 - 1e-3) <= found <= eps


def test_rounds_add_up():
    alike = spent([Release(2.0, 1.0)] * 4, DELTA)
    assert spent([], DELTA) == 0.0
    # Four releases with noise 2 tell as much as one with noise 1.
    assert alike == pytest.approx(spent([Release(1.0, 1.0)], DELTA), rel=1e-3)
    assert spent([Release(2.0, 1.0), Release(3.0, 0.5)], DELTA) < alike


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: epsilon(noise_multiplier=0.0, sampling_rate=0.1, rounds=1, delta=DELTA), "noise"),
        (lambda: epsilon(noise_multiplier=1.0, sampling_rate=1.1, rounds=1, delta=DELTA), "sampling_rate"),
        (lambda: epsilon(noise_multiplier=1.0, sampling_rate=0.1, rounds=-1, delta=DELTA), "rounds"),
        (lambda: epsilon(noise_multiplier=1.0, sampling_rate=0.1, rounds=1, delta=0.0), "delta"),
        (lambda: noise_multiplier(epsilon=0.0, sampling_rate=0.1, rounds=1, delta=DELTA), "epsilon"),
        (lambda: noise_multiplier(epsilon=1.0, sampling_rate=0.1, rounds=0, delta=DELTA), "rounds"),
        (lambda: noise_multiplier(epsilon=1e-6, sampling_rate=1.0, rounds=1, delta=DELTA), "between"),
    ],
)
def test_senseless_questions_are_refused(call, said):
    with pytest.raises(OptionError, match=said):
        call()
