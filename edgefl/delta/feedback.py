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
    """

    vector: Vector
    schema_id: bytes
    base_version: int


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
) -> tuple[Encoded, Residual]:
    """Encode `delta + decay * residual`, and keep what the decoder will not see of it.

    Args:
        delta: float32 of shape `(d,)`.
        residual: from the round before, or None.
        encode: the codec with everything but the vector decided.

    Returns:
        The encoded update, and the residual for the next round: their sum is the vector that was encoded.

    Raises:
        DataShape: the residual is of another size.
    """
    vector = _sum(delta, residual, decay)
    encoded = encode(vector)
    left = vector.copy() if vector is delta else vector
    left[encoded.indices] -= encoded.values
    return encoded, Residual(left, schema_id, base_version)


def _sum(delta: Vector, residual: Residual | None, decay: float) -> Vector:
    if residual is None:
        return delta
    if residual.vector.shape != delta.shape:
        raise DataShape(f"residual of shape {residual.vector.shape} for an update of shape {delta.shape}")
    total = residual.vector * np.float32(decay)
    total += delta
    return total
