# SPDX-License-Identifier: Apache-2.0
"""What a device remembers from round to round so that data unlike others' do not pull the model aside.

FedDyn is Acar et al., 2021 (arXiv:2111.04263), algorithm 1. The device minimises `L(p) - <h, p> + alpha / 2
|p - p_global|^2`, so its direction is `g + alpha * (p - p_global) - h`; where it ends, `h` is the gradient of
its own loss: `h -= alpha * (p - p_global)`. The server's part is in `edgefl.server_stub.aggregators.feddyn`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.options import FitOptions
from edgefl.parameters import Schema, Vector


@dataclass(frozen=True)
class Drift:
    """What a device remembers once the server has accepted an update; it never leaves the device.

    Attributes:
        algorithm: that remembers it; another one has no use for it.
        vector: float32 of shape `(schema.size,)`.
    """

    algorithm: str
    vector: Vector


def correction(options: FitOptions, schema: Schema, drift: Drift | None) -> Mapping[str, npt.NDArray[Any]]:
    """What is added to gradients of shared parameters.

    Args:
        drift: of the latest accepted update; None before the first.
    """
    if drift is None or drift.algorithm != options.algorithm:
        return {}
    return schema.unflatten(-drift.vector)


def after(options: FitOptions, drift: Drift | None, delta: Vector) -> Drift | None:
    """What is to be remembered once the server has accepted an update.

    Args:
        delta: what training changed, float32 of shape `(schema.size,)`.

    Returns:
        None where the algorithm remembers nothing.
    """
    if options.algorithm != "feddyn":
        return None
    moved = np.float32(options.alpha) * delta
    known = drift is not None and drift.algorithm == options.algorithm
    return Drift(options.algorithm, drift.vector - moved if drift and known else -moved)
