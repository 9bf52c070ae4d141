# SPDX-License-Identifier: Apache-2.0
"""Models nobody planned for: right gradients, or a refusal that says what to do."""

from __future__ import annotations

import warnings

import pytest

from edgefl.errors import ConversionError
from tests.models.measure import DOUBLE, GRADIENT, TRAJECTORY, converted, measure
from tests.models.surprises import BY_NAME, ENTRIES, REFUSED
from tests.models.zoo import Entry

LARGE = "keras_models:application"  # whole networks: float64 in NumPy would take minutes


@pytest.mark.slow
@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name not in REFUSED], ids=lambda e: e.name)
def test_gradients_are_the_frameworks_own(entry: Entry) -> None:
    double = entry.factory != LARGE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' own
        outcome = measure(entry, double=double)

    assert outcome.gradient < GRADIENT, outcome
    assert not double or outcome.double < DOUBLE, outcome
    if double:  # where rounding is amplified beyond the bound, the same graph in float64 has to stay within
        assert min(outcome.moved, outcome.moved_double) < TRAJECTORY, outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_with_what_to_do(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ConversionError, match=REFUSED[name]):
            converted(BY_NAME[name], BY_NAME[name].build())


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(ENTRIES)
