# SPDX-License-Identifier: Apache-2.0
"""What a device remembers from round to round so that data unlike others' do not pull the model aside.

FedDyn is Acar et al., 2021 (arXiv:2111.04263), algorithm 1. The device minimises `L(p) - <h, p> + alpha / 2
|p - p_global|^2`, so its direction is `g + alpha * (p - p_global) - h`; where it ends, `h` is the gradient of
its own loss: `h -= alpha * (p - p_global)`.

SCAFFOLD is Karimireddy et al., 2020 (arXiv:1910.06378), algorithm 1 with option II. The direction is `g - c_i
+ c`, with the server's control variate `c`; after `K` steps at a rate `lr`, `c_i += -c - sent / (K lr)`. What
is sent of an update decides, not what was trained: the server works out the same change from the same frame,
so that it needs no other.

The server's parts are in `edgefl.server_stub.aggregators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def needs_control(options: FitOptions) -> bool:
    """Whether devices train beside the server's control variate."""
    return options.algorithm == "scaffold"


def correction(
    options: FitOptions, schema: Schema, drift: Drift | None, control: Vector | None
) -> Mapping[str, npt.NDArray[Any]]:
    """What is added to gradients of shared parameters.

    Args:
        drift: of the latest accepted update; None before the first.
        control: the server's control variate, where there is one.
    """
    own = _known(options, drift)
    if control is None:
        return {} if own is None else schema.unflatten(-own)
    return schema.unflatten(control if own is None else control - own)


def after(
    options: FitOptions,
    drift: Drift | None,
    control: Vector | None,
    delta: Vector,
    steps: int,
    sent: Callable[[], Vector],
) -> Drift | None:
    """What is to be remembered once the server has accepted an update.

    Args:
        drift, control: see `correction`.
        delta: what training changed, float32 of shape `(schema.size,)`.
        steps: that it took.
        sent: gives what the server sees of it.

    Returns:
        None where the algorithm remembers nothing.
    """
    own = _known(options, drift)
    if options.algorithm == "feddyn":
        moved = np.float32(options.alpha) * delta
        return Drift(options.algorithm, -moved if own is None else own - moved)
    if control is None:
        return None
    assert options.lr is not None  # scaffold is refused without
    change = -control.astype(np.float64) - sent().astype(np.float64) / (steps * options.lr)
    return Drift(options.algorithm, (change if own is None else own + change).astype(np.float32))


def _known(options: FitOptions, drift: Drift | None) -> Vector | None:
    return drift.vector if drift is not None and drift.algorithm == options.algorithm else None
