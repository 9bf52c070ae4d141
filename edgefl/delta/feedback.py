# SPDX-License-Identifier: Apache-2.0
"""Error feedback: what a frame leaves out is remembered and added to the next update (Seide et al. 2014).

Pure functions of a value and a state; whoever calls them keeps the state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgefl.delta.codec import Encoded
from edgefl.errors import DataShape
from edgefl.parameters import Vector


@dataclass(frozen=True)
class Residual:
    """What earlier frames left out.

    Attributes:
        vector: float32 of shape `(d,)`.
        schema_id: the parameters it belongs to.
        base_version: the model version of the update it was left by.
        momentum: running sum of updates, float32 of shape `(d,)`; None without momentum correction.
    """

    vector: Vector
    schema_id: bytes
    base_version: int
    momentum: Vector | None = None


def carry(residual: Residual | None, schema_id: bytes, base_version: int, max_age: int) -> Residual | None:
    """The residual if it still means something for an update of this schema and base version, else None.

    It does not after the parameters changed, after the version went back, or after more than `max_age`
    versions without this device.
    """
    if residual is None or residual.schema_id != schema_id:
        return None
    age = base_version - residual.base_version
    return residual if 0 <= age <= max_age else None


def apply_feedback(
    delta: Vector,
    residual: Residual | None,
    encode: Callable[[Vector], Encoded],
    *,
    schema_id: bytes,
    base_version: int,
    decay: float = 1.0,
    momentum: float = 0.0,
) -> tuple[Encoded, Residual]:
    """Encode `delta + decay * residual`, and keep what the decoder will not see of it.

    With momentum correction (Lin et al. 2018) a running sum `u = momentum * u + delta` takes the place of the
    delta, and starts again from zero where something was sent.

    Args:
        delta: float32 of shape `(d,)`.
        residual: from the round before, or None.
        encode: the codec with everything but the vector decided.
        decay: how much of the residual still counts, 0 to 1.
        momentum: how much of the running sum still counts, 0 (no correction) to below 1.

    Returns:
        The encoded update, and the residual for the next round: what was sent and the residual's vector add
        up to the vector that was encoded.

    Raises:
        DataShape: the residual is of another size.
    """
    if residual is not None and residual.vector.shape != delta.shape:
        raise DataShape(f"residual of shape {residual.vector.shape} for an update of shape {delta.shape}")
    running = _sum(delta, residual.momentum if residual else None, momentum)
    vector = _sum(running, residual.vector if residual else None, decay)
    encoded = encode(vector)
    left = vector.copy() if vector is delta or vector is running else vector
    left[encoded.indices] -= encoded.values
    if not momentum:
        return encoded, Residual(left, schema_id, base_version)
    running = running.copy() if running is delta else running
    running[encoded.indices] = 0
    return encoded, Residual(left, schema_id, base_version, running)


def _sum(delta: Vector, before: Vector | None, factor: float) -> Vector:
    """`delta + factor * before` in new memory, or the delta itself where there is nothing to add."""
    if before is None or not factor:
        return delta
    total = before * np.float32(factor)
    total += delta
    return total
