# SPDX-License-Identifier: Apache-2.0
"""One device's answer to how good a version is: three numbers over examples held out. No disk or network."""

from __future__ import annotations

import logging
from typing import Protocol, runtime_checkable

from edgefl.parameters import Arrays
from edgefl.runtime.learner import ALONE, Stint
from edgefl.runtime.metrics import Metrics
from edgefl.runtime.work import LASTING, PASSING
from edgefl.wire import MAX_LOSS, Evaluated, EvaluationTask

log = logging.getLogger("edgefl.client")


@runtime_checkable
class Measurer(Protocol):
    """A learner that holds examples out of training."""

    @property
    def held_out(self) -> int:
        """How many there are."""
        ...

    def measure(self, parameters: Arrays, most: int, stint: Stint) -> Metrics:
        """How good shared parameters are on the first `most` of them.

        Raises:
            DataError, BackendError: that is impossible.
            Interrupted: the stint said to stop before the end.
        """
        ...


def held_out_by(learner: object) -> int:
    """How many examples a learner holds out of training."""
    return learner.held_out if isinstance(learner, Measurer) else 0


def evaluated(
    task: EvaluationTask, parameters: Arrays, learner: object, stint: Stint = ALONE
) -> tuple[Evaluated, str]:
    """What the server is told, and why that is nothing where it is.

    Args:
        parameters: shared, of the task's version.
        stint: what else the device brings, and when it stops.

    Raises:
        Interrupted: the stint ended before that.
    """
    if not isinstance(learner, Measurer):
        return Evaluated(), "nothing is held out here"
    try:
        found = learner.measure(parameters, task.max_examples, stint)
    except (*PASSING, *LASTING) as exc:
        return Evaluated(), str(exc)
    if not abs(found.loss) <= MAX_LOSS:
        return Evaluated(), f"the loss is {found.loss:g}"
    return Evaluated(found.examples, found.loss, found.accuracy), ""
