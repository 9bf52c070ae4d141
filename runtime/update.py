# SPDX-License-Identifier: Apache-2.0
"""From what training learned to the frame a device sends, and what the frame leaves out."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from edgefl.delta import STATELESS_MODES, Encoded, Residual, apply_feedback, carry
from edgefl.delta.asked import encode_as
from edgefl.errors import DeltaOption
from edgefl.options import CodingOptions, FrameOptions
from edgefl.parameters import Schema, Vector
from edgefl.runtime.residual import MAX_AGE

NMSE_PER_UPDATE = 5.0
"""Noise one unbiased update may carry, per update the round aims for: the mean of them stays useful."""


def encode_update(
    delta: Vector,
    coding: CodingOptions,
    *,
    seed: int,
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
        seed: of the round, the same for all of its devices: it decides which parameters mode `subset` sends.
        device: the device's name; with the seed it decides the randomness of the unbiased modes.
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
        coding=coding,
        schema=schema,
        base_version=base_version,
        meta=meta,
        rng=np.random.default_rng([seed, zlib.crc32(device.encode())]),
        subset_seed=seed,
        nmse_limit=NMSE_PER_UPDATE * cohort if coding.mode == "unbiased" else None,
    )
    if coding.mode in STATELESS_MODES:
        return code(delta), None
    kept = carry(residual, schema.id, base_version, MAX_AGE)
    missed = max(0, base_version - kept.base_version - 1) if kept else 0
    return apply_feedback(
        delta,
        kept,
        code,
        schema_id=schema.id,
        base_version=base_version,
        decay=coding.residual_decay**missed,
        momentum=coding.correction,
    )


def encode_once(
    delta: Vector, coding: FrameOptions, *, seed: int, schema: Schema, base_version: int
) -> Encoded:
    """Code an update that no other follows, for whatever cohort: what it leaves out is lost.

    Args:
        seed: of what is rounded or drawn at random; the version decides which parameters `subset` sends.

    Raises:
        DeltaOption: the payload is shorter than any frame.
        NotFinite: NaN, infinity or a magnitude over 1e37 in the update.
    """
    rng = np.random.default_rng(seed)
    return _code(delta, coding=coding, schema=schema, base_version=base_version, rng=rng)


def _code(vector: Vector, *, coding: FrameOptions, schema: Schema, **options: Any) -> Encoded:
    """Encode within the budget; but noise beyond what the cohort can average helps nobody."""
    call = partial(encode_as, vector, coding, schema, **options)
    if not coding.payload:
        return call(density=coding.density)
    try:
        return call(payload_bytes=coding.payload)
    except DeltaOption:
        if coding.mode != "unbiased" or options.get("nmse_limit") is None:
            raise
        return call(k=1)
