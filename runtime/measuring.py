# SPDX-License-Identifier: Apache-2.0
"""A device's answer to how good a version is, fetched, measured and sent."""

from __future__ import annotations

import logging

from edgefl.errors import Refused
from edgefl.runtime.conditions import Guard
from edgefl.runtime.evaluating import evaluated
from edgefl.runtime.going import Going
from edgefl.runtime.learner import Stint
from edgefl.runtime.pause import Interrupted
from edgefl.runtime.remote import Remote
from edgefl.runtime.turn import Ready
from edgefl.wire import Evaluated, EvaluationTask

log = logging.getLogger("edgefl.client")


def measure(ready: Ready, task: EvaluationTask, remote: Remote, going: Going, guard: Guard) -> None:
    """Tell the server how good a version is here; where the device may not go on, later or not at all."""
    guard.demanded(task.when)
    if guard.pause():
        return
    until = going.clock() + task.deadline_s
    guard.doing(f"measures version {task.base_version}")
    stint = Stint(
        own=ready.belongings.of_federation(task.federation).personal(),
        should_stop=lambda: going.should_stop() or going.clock() >= until,
    )
    going.begin_steps()
    version = task.base_version
    try:
        values = going.insist(lambda: ready.held.fetch(remote, task))
        found, said = evaluated(task, values, ready.learner, stint)
    except Interrupted:
        log.info("version %d: interrupted", version)
        return
    except Refused as exc:
        found, said = Evaluated(), str(exc)
    accepted = True
    try:
        going.insist(lambda: remote.evaluated(version, task.assignment, found))
    except Refused as exc:
        accepted, said = False, str(exc)
    if said:
        log.warning("version %d: %s", version, said)
        going.rest(1)
    guard.measured(version, found, accepted=accepted, said=said)
