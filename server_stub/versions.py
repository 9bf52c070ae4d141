# SPDX-License-Identifier: Apache-2.0
"""From one version of the parameters to the next."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgefl.delta import lattice
from edgefl.errors import NotFinite
from edgefl.parameters import Schema, Vector
from edgefl.server_stub.aggregate import stepped
from edgefl.server_stub.aggregators import Aggregator, State, Updates, Verdict
from edgefl.server_stub.aggregators.base import MIRRORED, Vector64
from edgefl.server_stub.aggregators.private import PrivateMean
from edgefl.server_stub.downlink import Link
from edgefl.server_stub.publish import Exhausted, Standing, publish
from edgefl.server_stub.values import Publication, Version
from edgefl.tensorfile import read_tensors, write_tensors

log = logging.getLogger("edgefl.server")


@dataclass(frozen=True)
class Line:
    """The versions of one model.

    Attributes:
        schema: its parameters.
        first: number of the first version.
        start: its parameters, float32 of shape `(schema.size,)`.
        aggregator: makes steps out of updates.
        error: see `Settings.downlink`.
        bundle: `Bundle.digest` of what the server was started with.
    """

    schema: Schema
    first: int
    start: Vector
    aggregator: Aggregator
    error: float
    bundle: str = ""

    def with_noise(self, noise: float) -> Line:
        """The same with so much noise, where it makes private versions."""
        rule = self.aggregator
        return replace(self, aggregator=replace(rule, noise=noise)) if isinstance(rule, PrivateMean) else self

    def next_version(self, base: Version, updates: Updates) -> tuple[Version, Mapping[str, Verdict]]:
        """The version that updates against `base` lead to, and which of them do not count as they are.

        Where the sum of finite updates is not finite, the parameters stay and the optimizer begins afresh:
        devices must not get such parameters, nor may the round block those that follow.
        """
        initial = self.aggregator.init(self.schema.size)
        state: State = read_tensors(base.optimizer)
        if state.keys() != initial.keys():
            # Momentum was switched on or off between two starts of the server.
            state = initial
        made = self.aggregator(updates, state)
        try:
            return self._moved(base, made.step, write_tensors(made.state)), made.verdicts
        except NotFinite as exc:
            log.error("version %d: %s; they stay as they were", base.number + 1, exc)
            return self._moved(base, np.zeros(self.schema.size), write_tensors(initial)), made.verdicts

    def restored(self, newest: Version, number: int, parameters: bytes) -> Version:
        """The version after the newest one that has an old one's parameters, to the bit.

        The optimizer begins afresh, but for what devices have their own part of. They get there by a step
        like any other, or, where none says it exactly, they fetch it whole.

        Args:
            number: of the old version.
            parameters: its own, as encoded tensors.
        """
        fresh, last = self.aggregator.init(self.schema.size), read_tensors(newest.optimizer)
        state = {n: last[n] if n in MIRRORED and n in last else value for n, value in fresh.items()}
        optimizer = write_tensors(state)
        publication = self._way_back(newest, parameters) if self.error else None
        return replace(self._made(newest, parameters, optimizer, publication), restores=number)

    def _way_back(self, newest: Version, parameters: bytes) -> Publication | None:
        standing, leaves = self.standing(newest)
        wanted = self.schema.flatten(read_tensors(parameters))
        unit = standing.finest if math.isfinite(standing.finest) else 1.0
        # All that devices ever held is the start and whole multiples of this.
        moved = np.rint((wanted.astype(np.float64) - self.start) / unit) * unit
        if not np.array_equal(lattice.weights(self.start, moved), wanted):
            return None
        after = Standing(self.start, moved, np.zeros(len(moved), np.float32), standing.finest)
        moves, largest = moved - standing.moved, lattice.EXACT * unit
        if np.abs(moves).max(initial=0.0) >= largest:
            moves, leaves = moved, self.first
        if np.abs(moves).max(initial=0.0) >= largest:
            return None
        frame = lattice.encode_moves(moves, unit, schema_id=self.schema.id, base_version=leaves)
        link = Link(newest.number + 1, leaves, frame, unit)
        return Publication(link, lattice.fingerprint(wanted), after.to_bytes())

    def standing(self, base: Version) -> tuple[Standing, int]:
        """Where devices stand at a version, and the version whose holders can take the next step."""
        if base.publication is not None and base.publication.standing is not None:
            return Standing.from_bytes(base.publication.standing, self.start), base.number
        if base.number == self.first:
            return Standing.first(self.start), self.first
        # The versions before were published whole.
        held = self.schema.flatten(read_tensors(base.parameters)).astype(np.float64)
        return self._from_start(held), self.first

    def _from_start(self, wanted: Vector64) -> Standing:
        """Where the next step is one from the first version to what is wanted, and beyond."""
        fresh = Standing.first(self.start)
        return replace(fresh, remainder=(wanted - fresh.weights()).astype(np.float32))

    def _moved(self, base: Version, step: Vector64, optimizer: bytes) -> Version:
        number = base.number + 1
        standing, leaves = self.standing(base)
        if not self.error:
            # What earlier versions left for later is due now.
            due = step + standing.remainder if base.publication is not None else step
            values = stepped(self.schema, read_tensors(base.parameters), due)
            return self._made(base, write_tensors(values), optimizer, None)
        try:
            made, after = publish(standing, step, self.error)
        except Exhausted:
            leaves = self.first
            wanted = standing.weights().astype(np.float64) + standing.remainder
            made, after = publish(self._from_start(wanted), step, self.error)
        frame = lattice.encode_moves(made.moves, made.unit, schema_id=self.schema.id, base_version=leaves)
        held = after.weights()
        link = Link(number, leaves, frame, made.unit)
        publication = Publication(link, lattice.fingerprint(held), after.to_bytes())
        return self._made(base, write_tensors(self.schema.unflatten(held)), optimizer, publication)

    def _made(
        self, base: Version, parameters: bytes, optimizer: bytes, publication: Publication | None
    ) -> Version:
        number = base.number + 1
        return Version(number, parameters, optimizer, publication, base.number, bundle=self.bundle)
