# SPDX-License-Identifier: Apache-2.0
"""What the PyTorch and the Keras networks of the step benchmark share."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

NAMES = ("cnn", "resnet8", "mobilenetv2", "dscnn", "bert", "gru", "llama")

MOBILENET = (
    (1, 8, 1, 1),
    (6, 8, 2, 2),
    (6, 16, 3, 2),
    (6, 24, 4, 2),
    (6, 32, 3, 1),
    (6, 56, 3, 2),
    (6, 112, 1, 1),
)
"""Factor, channels, blocks and first stride of each stage of MobileNetV2 at width 0.35."""


def rotary(steps: int, size: int) -> tuple[Array, Array]:
    """Cosine and sine of Llama's rotary positions, `[steps, 1, size]`."""
    rates = 1.0 / 10000 ** (np.arange(0, size, 2) / size)
    angles = np.tile(np.outer(np.arange(steps), rates), 2)[:, None].astype(np.float32)
    return np.cos(angles), np.sin(angles)
