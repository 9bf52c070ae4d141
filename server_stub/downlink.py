# SPDX-License-Identifier: Apache-2.0
"""The shortest way from what a device holds to what it needs: a chain of steps, their sum, or all of them.

All three lead to the same bits (see `edgefl.delta.lattice`), so the number of bytes alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgefl.delta import SparseDelta, lattice
from edgefl.parameters import Schema
from edgefl.server_stub.publish import Standing

CHAIN = 8
"""Versions a device may be behind and still be led there step by step."""

# A whole state takes about a byte per parameter; it is only tried where the steps take as much.
_STATE_BYTES = 0.5

_KEPT_BYTES = 1 << 16
"""The longest step that is kept decoded: some of them at once must not take much memory."""


@dataclass(frozen=True)
class Link:
    """One published version.

    Attributes:
        version: that devices hold after it.
        base: version they must hold before: the one before, or the first.
        frame: the step, one frame or more.
        unit: every value is a multiple of it.
    """

    version: int
    base: int
    frame: bytes
    unit: float


def shortest(
    links: Sequence[Link], held: int, version: int, schema: Schema, whole: Callable[[], bytes | None]
) -> bytes | None:
    """Frames that lead a device from one version to another, or from the first; None where nothing does.

    Args:
        links: the versions published after the one held, oldest first.
        whole: makes all steps since the first version one, where that is possible.
    """
    if not 0 < len(links) <= CHAIN or not _connected(links, held, version):
        return whole()
    chain = b"".join(link.frame for link in links)
    best = chain if len(links) == 1 else min(chain, merged(links, schema), key=len)
    if len(best) < _STATE_BYTES * schema.size:
        return best
    return min(best, whole() or best, key=len)


def merged(links: Sequence[Link], schema: Schema) -> bytes:
    """The sum of consecutive steps as one step."""
    first, total = links[0], np.zeros(schema.size)
    for link in links:
        moves = _moves if len(link.frame) <= _KEPT_BYTES else _moves.__wrapped__
        for update in moves(link.frame, schema.id, schema.size, link.version):
            total[update.indices] += update.values
    unit = min(link.unit for link in links)
    return lattice.encode_moves(total, unit, schema_id=schema.id, base_version=first.base)


@lru_cache(maxsize=2 * CHAIN)
def _moves(frame: bytes, schema_id: bytes, size: int, version: int) -> tuple[SparseDelta, ...]:
    """What a step's frames say. The same steps are part of the ways of many devices."""
    return tuple(lattice.decode_moves(frame, schema_id=schema_id, size=size, versions=range(version)))


def since_first(standing: Standing, schema: Schema, first: int) -> bytes:
    """All steps since the first version as one."""
    unit = standing.finest if math.isfinite(standing.finest) else 1.0
    return lattice.encode_moves(standing.moved, unit, schema_id=schema.id, base_version=first)


def _connected(links: Sequence[Link], held: int, version: int) -> bool:
    """Whether links lead from one version to another, one after the other."""
    at = held
    for link in links:
        if link.base != at:
            return False
        at = link.version
    return at == version
