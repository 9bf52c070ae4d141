# SPDX-License-Identifier: Apache-2.0
"""An aggregator put together: lengths bounded, a rule that makes one update of many, a server optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgefl.server_stub.aggregators.base import Outcome, State, Updates, Vector64
from edgefl.server_stub.aggregators.bounds import Bound
from edgefl.server_stub.aggregators.optimizers import ServerOptimizer

Rule = Callable[[Updates], Vector64]
"""Updates -> one, of shape `(size,)`."""


@dataclass(frozen=True)
class Chain:
    """See `Aggregator`.

    Attributes:
        rule: makes one update of many.
        optimizer: makes a step of that.
        bound: on the updates' lengths, None for any.
        prepare: what is done to updates before they are compared at all, None for nothing.
    """

    rule: Rule
    optimizer: ServerOptimizer
    bound: Bound | None = None
    prepare: Callable[[Updates], Updates] | None = None

    def init(self, size: int) -> State:
        return self.optimizer.init(size)

    def __call__(self, updates: Updates, state: State) -> Outcome:
        prepared = self.prepare(updates) if self.prepare else updates
        bounded, verdicts = self.bound(prepared) if self.bound else (prepared, {})
        step, after = self.optimizer.apply(self.rule(bounded), state)
        return Outcome(step, after, verdicts)
