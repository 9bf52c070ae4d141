# SPDX-License-Identifier: Apache-2.0
"""Every model of the zoo against its own framework: each gradient, and twenty steps of training."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from tests.models.measure import Outcome, measure
from tests.models.norms import DOUBLE, GRADIENT, TRAJECTORY
from tests.models.zoo import ENTRIES, Entry


def marked(entry: Entry) -> object:
    return pytest.param(entry, id=entry.name, marks=() if entry.quick else pytest.mark.slow)


def check(outcome: Outcome) -> None:
    assert outcome.gradient < GRADIENT, outcome
    assert outcome.double < DOUBLE, outcome
    assert outcome.losses < TRAJECTORY, outcome
    assert outcome.moved < TRAJECTORY, outcome


@pytest.mark.parametrize("entry", [marked(e) for e in ENTRIES])
def test_gradients_and_training_are_the_frameworks_own(entry: Entry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' own
        outcome = measure(entry)

    check(outcome)
    assert not outcome.idle, "every parameter of these models takes part"


def test_names_are_unique() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


def test_importing_the_zoo_imports_no_framework() -> None:
    text = "import sys, tests.models.zoo; print({'torch', 'tensorflow', 'keras'} & set(sys.modules))"
    made = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)

    assert made.stdout.strip() == "set()"
