# SPDX-License-Identifier: Apache-2.0
"""Models nobody planned for: right gradients, or a refusal that says what to do."""

from __future__ import annotations

import warnings

import pytest

from edgefl.errors import ConversionError
from tests.models.measure import converted, measure
from tests.models.surprises import BY_NAME, ENTRIES, REFUSED
from tests.models.zoo import Entry


@pytest.mark.slow
@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.name not in REFUSED], ids=lambda e: e.name)
def test_gradients_are_the_frameworks_own(entry: Entry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' own
        outcome = measure(entry)

    assert outcome.right, outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_the_rest_is_refused_with_what_to_do(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ConversionError, match=REFUSED[name]):
            converted(BY_NAME[name], BY_NAME[name].build())


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(ENTRIES)
