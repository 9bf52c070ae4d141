# SPDX-License-Identifier: Apache-2.0
"""What devices make of the last version for themselves, by the code that does it on real ones."""

from __future__ import annotations

import logging

from edgefl.data import Examples
from edgefl.errors import DataError, NotFinite
from edgefl.options import FitOptions
from edgefl.parameters import Arrays
from edgefl.runtime.learner import TrainerLearner
from edgefl.runtime.personal import Personal, Tried
from edgefl.simulation.fleet import Fleet
from edgefl.simulation.plan import PersonalRow

log = logging.getLogger("edgefl.simulation")


def own_model(
    fleet: Fleet, name: str, values: Arrays, options: FitOptions, later: Examples | None
) -> PersonalRow | None:
    """What a device chose; None where it has too few examples to hold some out, or training diverged.

    Args:
        values: shared parameters of the last version.
        options: how it trains a model of its own.
        later: examples that came later.

    Raises:
        DataError: those do not fit the model.
    """
    gauge = None if later is None else fleet.learner(later)
    try:
        made = fleet.personalize(name, values, options)
    except (DataError, NotFinite) as exc:
        log.warning("%s keeps the federation's model: %s", name, exc)
        return None
    return PersonalRow(made.kind, made.share, made.steps, made.tried, _on(gauge, made))


def _on(gauge: TrainerLearner | None, made: Personal) -> tuple[Tried, ...]:
    """Every mixture on other examples."""
    if gauge is None:
        return ()
    mixtures = ((one.share, made.mixture(one.share)) for one in made.tried)
    return tuple(Tried(share, gauge.evaluate(mixture, mixture)) for share, mixture in mixtures)
