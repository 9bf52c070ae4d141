# SPDX-License-Identifier: Apache-2.0
"""From one version of the parameters to the next."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edgefl.delta import SparseDelta
from edgefl.errors import NotFinite
from edgefl.parameters import Schema
from edgefl.server_stub.aggregate import ServerOptimizer, State, stepped, weighted_mean
from edgefl.server_stub.rows import Version
from edgefl.tensorfile import read_tensors, write_tensors

log = logging.getLogger("edgefl.server")


def next_version(
    base: Version, updates: Iterable[tuple[SparseDelta, float]], schema: Schema, optimizer: ServerOptimizer
) -> Version:
    """The version that weighted updates against `base` lead to.

    Where the sum of finite updates is not finite, the parameters stay and the optimizer begins afresh:
    devices must not get such parameters, nor may the round block those that follow.
    """
    initial = optimizer.init(schema.size)
    state: State = read_tensors(base.optimizer)
    if state.keys() != initial.keys():
        # Momentum was switched on or off between two starts of the server.
        state = initial
    step, state = optimizer.apply(weighted_mean(updates, schema.size), state)
    try:
        values = stepped(schema, read_tensors(base.parameters), step)
    except NotFinite as exc:
        log.error("version %d: %s; they stay as they were", base.number + 1, exc)
        return Version(base.number + 1, base.parameters, write_tensors(initial))
    return Version(base.number + 1, write_tensors(values), write_tensors(state))
