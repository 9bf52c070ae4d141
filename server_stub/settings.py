# SPDX-License-Identifier: Apache-2.0
"""Everything a server is told when it starts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from edgefl.delta import STATELESS_MODES
from edgefl.errors import OptionError
from edgefl.parameters import Schema
from edgefl.server_stub.rounds import Plan
from edgefl.wire import FIRST_DENSITY, Training

DOWNLINK = 0.03
"""Squared error a published step may have by default, relative to its squared length."""


_AS_DENSE_AS_ASKED = ("topk", "ternary", "subset")


@dataclass(frozen=True)
class Settings:
    """Settings of one server.

    Attributes:
        bundle: the model file, or its bytes.
        database: path of an SQLite file, or a database URL.
        rounds: rounds to run; a server started again with more goes on.
        goal: updates that fill a round.
        minimum: updates that fill it at its deadline, None for half the goal.
        deadline_s: seconds from the opening of a round to its deadline.
        surplus: devices beyond the goal that may start, as a part of the goal; they stand in for dropouts.
        training: how devices train; the seed is that of round 1 and counts up with the rounds.
        server_lr: the step taken along the mean update; 1 is FedAvg.
        server_momentum: momentum of those steps; above 0 is FedAvgM.
        max_update_bytes: the largest frame taken, None for what the training settings can need.
        max_norm: the largest L2 norm of an update, None for no bound.
        max_examples: the most examples a device's update may count for, whatever the device says it has.
        downlink: the part of a new version's step, in squared length, that may wait for the versions after
            it: the larger, the shorter what devices fetch. 0 publishes exactly, in whole float32 models.
        long_poll_s: seconds a check-in without work is held in the hope of some.
        retry_after_s: seconds a device waits before it checks in again.
    """

    bundle: str | os.PathLike[str] | bytes
    database: str | os.PathLike[str]
    rounds: int = 10
    goal: int = 8
    minimum: int | None = None
    deadline_s: float = 300.0
    surplus: float = 0.3
    training: Training = field(default_factory=Training)
    server_lr: float = 1.0
    server_momentum: float = 0.0
    max_update_bytes: int | None = None
    max_norm: float | None = None
    max_examples: int = 100_000
    downlink: float = DOWNLINK
    long_poll_s: float = 5.0
    retry_after_s: float = 1.0

    def __post_init__(self) -> None:
        if self.rounds < 0 or not self.server_lr > 0 or not 0 <= self.server_momentum < 1:
            raise OptionError(
                f"rounds {self.rounds}, server_lr {self.server_lr}, server_momentum {self.server_momentum}: "
                "rounds >= 0, server_lr > 0 and 0 <= server_momentum < 1 are needed"
            )
        if not 0 <= self.downlink < 1 or self.max_examples < 1:
            raise OptionError(
                f"downlink {self.downlink}, max_examples {self.max_examples}: "
                "0 <= downlink < 1 and max_examples >= 1 are needed"
            )
        if self.training.payload and self.training.warm_up:
            raise OptionError(
                f"payload {self.training.payload} with warm_up {self.training.warm_up}: "
                "a warm-up is about the density, which a payload replaces; give one of them"
            )
        if self.training.correction and self.training.mode in STATELESS_MODES:
            raise OptionError(
                f"correction {self.training.correction} in mode {self.training.mode}: momentum correction is "
                f"for modes with error feedback, which {', '.join(sorted(STATELESS_MODES))} do without"
            )
        self.plan()

    def plan(self) -> Plan:
        """What each round asks for; OptionError where it is impossible."""
        minimum = math.ceil(self.goal / 2) if self.minimum is None else self.minimum
        return Plan(self.goal, minimum, self.deadline_s, self.goal + math.ceil(self.goal * self.surplus))

    def max_nonzeros(self, schema: Schema) -> int:
        """The most elements an update may send."""
        t = self.training
        if t.payload or t.mode not in _AS_DENSE_AS_ASKED:
            # All of them, or as many as fit the bytes or keep the noise in bounds.
            return schema.size
        density = max(t.density, FIRST_DENSITY) if t.warm_up else t.density
        # Every tensor sends at least one; small ones may be sent whole.
        each = len(schema.parameters) if t.per_tensor else 1
        small = sum(p.size for p in schema.parameters if p.size < t.whole_below)
        return min(schema.size, math.ceil(density * schema.size) + each + small)

    def max_frame_bytes(self, schema: Schema) -> int:
        """The largest frame taken."""
        t = self.training
        if t.payload and t.mode != "unbiased" and not self.max_update_bytes:
            return t.payload
        # A gap takes at most 6 bytes and a value at most 9 before any coding; a section up to 128.
        sections = len(schema.parameters) if t.per_tensor or t.whole_below else 0
        return self.max_update_bytes or 4096 + 128 * sections + 16 * self.max_nonzeros(schema)

    def database_url(self) -> str:
        text = os.fspath(self.database)
        return text if "://" in text else f"sqlite:///{Path(text).absolute()}"
