# SPDX-License-Identifier: Apache-2.0
"""Updates coded as options ask, and whether what they ask is possible at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgefl.delta.codec import Encoded, encode
from edgefl.errors import OptionError
from edgefl.options import FrameOptions
from edgefl.parameters import Schema, Vector

_META = {"loss": 0.0, "engine": ""}
"""What devices tell at least."""


def encode_as(vector: Vector, coding: FrameOptions, schema: Schema, **options: Any) -> Encoded:
    """Code a flat update in the options' mode and shape.

    Args:
        options: the rest of what `encode` takes: how much, for which version, by which randomness.

    Raises:
        DeltaOption, NotFinite: as `encode` raises them.
    """
    return encode(
        vector,
        schema_id=schema.id,
        mode=coding.mode,
        tensors=[(start, stop) for _, start, stop in schema.ranges()],
        per_tensor=coding.per_tensor,
        whole_below=coding.whole_below,
        **options,
    )


def check_payload(coding: FrameOptions, schema: Schema) -> None:
    """Refuse a payload that is too short for one single value, whatever is learned; OptionError."""
    if not coding.payload or not schema.size:
        return
    one = np.zeros(schema.size, np.float32)
    one[schema.size // 2] = 1.0
    shortest = len(encode_as(one, coding, schema, k=1, base_version=0, meta=_META, rng=0).frame)
    if shortest > coding.payload:
        raise OptionError(
            f"no update of this model is that short; in mode {coding.mode} the shortest take about "
            f"{shortest} bytes",
            {"payload": coding.payload},
        )
