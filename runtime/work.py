# SPDX-License-Identifier: Apache-2.0
"""One device's work in one round: train as the task asks, code the update. No disk, no network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgefl.delta import Encoded, Residual
from edgefl.delta.origin import origin, stamped
from edgefl.errors import BackendError, DataError, DeltaError, DeltaOption, DeltaTooLarge, NotFinite
from edgefl.options import CHOOSING_MODES
from edgefl.parameters import Arrays, Schema, Vector
from edgefl.runtime.algorithms import Drift, after
from edgefl.runtime.learner import ALONE, Learned, Learner, Stint
from edgefl.runtime.update import encode_update
from edgefl.wire import MAX_LOSS, Task

PASSING = (NotFinite, DeltaError)
"""Why a device declines one round: the next round's parameters may suit it better. Looked at first."""

LASTING = (DataError, BackendError)
"""Why a device can take part in no round at all."""

Coder = Callable[..., tuple[Encoded, Residual | None]]
"""Codes a device's update; called as `encode_update` is."""


@dataclass(frozen=True)
class Work:
    """An update ready to be sent.

    Attributes:
        frame: its bytes.
        residual: what is to be kept once the server has accepted it, None where nothing is.
        learned: what training gave.
        drift: what the algorithm remembers, kept as the residual is; None where it is nothing.
    """

    frame: bytes
    residual: Residual | None
    learned: Learned
    drift: Drift | None = None


def work(
    task: Task,
    parameters: Arrays,
    learner: Learner,
    *,
    schema: Schema,
    device: str,
    residual: Residual | None,
    stint: Stint = ALONE,
    code: Coder = encode_update,
) -> Work:
    """Train from a task's parameters and code what came of it.

    Args:
        parameters: shared, of the task's base version.
        device: the device's name, which decides the randomness of some modes.
        residual: what earlier updates left out.
        stint: what else the device brings to training, and when it stops.

    Raises:
        Interrupted: the stint ended before training did.
        NotFinite, DeltaError: see `PASSING`; DeltaTooLarge where the server would not take the frame.
        DataError, BackendError: see `LASTING`.
    """
    learned = learner.learn(parameters, task.training.fit, stint)
    if not abs(learned.loss) <= MAX_LOSS:
        raise NotFinite(f"training ended with a loss of {learned.loss:g}: a smaller lr or clip_norm may help")
    coding = task.training.coding
    coded = partial(
        code,
        learned.delta,
        seed=task.training.fit.seed,
        schema=schema,
        base_version=task.base_version,
        device=device,
        cohort=task.cohort,
        residual=residual,
        meta={"loss": learned.loss, "steps": learned.steps},
    )
    encoded, left = coded(coding)
    if len(encoded.frame) > task.max_bytes and coding.mode in CHOOSING_MODES:
        # The device's owner allows less than the server asked for; where nothing fits, the first one is told.
        with suppress(DeltaOption):
            encoded, left = coded(replace(coding, payload=task.max_bytes, warm_up=0))
    if len(encoded.frame) > task.max_bytes:
        raise DeltaTooLarge(f"the update has {len(encoded.frame)} bytes, allowed {task.max_bytes}")
    frame = encoded.frame
    if task.federation:
        frame = stamped(frame, task.fingerprint or origin(schema.flatten(parameters)))
    drift = after(
        task.training.fit,
        stint.drift,
        stint.control,
        learned.delta,
        learned.steps,
        partial(_dense, encoded, schema.size),
    )
    return Work(frame, left, learned, drift)


def _dense(encoded: Encoded, size: int) -> Vector:
    """What a decoder sees of an update."""
    vector = np.zeros(size, np.float32)
    vector[encoded.indices] = encoded.values
    return vector
