# SPDX-License-Identifier: Apache-2.0
"""From what training learned to the frame a device sends, and what the frame leaves out."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from edgefl.delta import Encoded, Residual, apply_feedback, encode
from edgefl.parameters import Schema, Vector
from edgefl.wire import Training

NMSE_PER_UPDATE = 5.0
"""Noise one unbiased update may carry, per update the round aims for: the mean of them stays useful."""


def encode_update(
    delta: Vector,
    training: Training,
    *,
    schema: Schema,
    base_version: int,
    device: str,
    cohort: int,
    residual: Residual | None = None,
    meta: Mapping[str, Any] | None = None,
) -> tuple[Encoded, Residual | None]:
    """Code one device's update as its task asks.

    Args:
        delta: float32 of shape `(schema.size,)`.
        device: the device's name; with the task's seed it decides the randomness of the unbiased modes.
        cohort: updates the round aims for.
        residual: what earlier updates left out; unused in the unbiased mode, which leaves nothing out.

    Returns:
        The coded update, and the residual to keep; None where there is none to keep.
    """
    unbiased = training.mode == "unbiased"
    code = partial(
        encode,
        schema_id=schema.id,
        base_version=base_version,
        density=training.density,
        mode=training.mode,
        meta=meta,
        rng=np.random.default_rng([training.seed, zlib.crc32(device.encode())]),
        nmse_limit=NMSE_PER_UPDATE * cohort if unbiased else None,
    )
    if unbiased:
        return code(delta), None
    return apply_feedback(delta, residual, code, schema_id=schema.id, base_version=base_version)
