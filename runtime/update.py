# SPDX-License-Identifier: Apache-2.0
"""From what training learned to the frame a device sends, and what the frame leaves out."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from edgefl.delta import STATELESS_MODES, Encoded, Residual, apply_feedback, carry, encode
from edgefl.errors import DeltaOption
from edgefl.parameters import Schema, Vector
from edgefl.runtime.residual import MAX_AGE
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
        residual: what earlier updates left out, of any age; unused in modes without error feedback.

    Returns:
        The coded update, and the residual to keep; None where there is none to keep.

    Raises:
        DeltaOption: the task asks for what does not exist, or for a payload that no frame of its mode fits.
        NotFinite: NaN, infinity or a magnitude over 1e37 in the update.
    """
    code = partial(
        _code,
        training=training,
        schema_id=schema.id,
        base_version=base_version,
        meta=meta,
        rng=np.random.default_rng([training.seed, zlib.crc32(device.encode())]),
        nmse_limit=NMSE_PER_UPDATE * cohort if training.mode == "unbiased" else None,
        tensors=[(start, stop) for _, start, stop in schema.ranges()],
    )
    if training.mode in STATELESS_MODES:
        return code(delta), None
    kept = carry(residual, schema.id, base_version, MAX_AGE)
    missed = max(0, base_version - kept.base_version - 1) if kept else 0
    return apply_feedback(
        delta,
        kept,
        code,
        schema_id=schema.id,
        base_version=base_version,
        decay=training.residual_decay**missed,
        momentum=training.correction,
    )


def _code(vector: Vector, *, training: Training, **options: Any) -> Encoded:
    """Encode within the task's budget; but noise beyond what the cohort can average helps nobody."""
    call = partial(
        encode,
        vector,
        mode=training.mode,
        subset_seed=training.seed,
        per_tensor=training.per_tensor,
        whole_below=training.whole_below,
        **options,
    )
    if not training.payload:
        return call(density=training.density)
    try:
        return call(payload_bytes=training.payload)
    except DeltaOption:
        if training.mode != "unbiased":
            raise
        return call(k=1)
