# SPDX-License-Identifier: Apache-2.0
"""Whether what is asked of a conversion makes sense, seen before the model is traced, or soon after."""

from __future__ import annotations

from collections.abc import Mapping

from edgefl.converters.losses import LossSpec, find_loss
from edgefl.converters.sources import Forward
from edgefl.converters.training import check_policy
from edgefl.converters.weights import check_bits, has_weights
from edgefl.errors import OptionError
from edgefl.parameters import Role
from edgefl.rules import Broken, integer

_BATCH = integer(1, 1_000_000)


def check_asked(loss: LossSpec, batch_size: int, batch_norm: str, frozen_bits: int | None) -> None:
    """Check what needs no model.

    Raises:
        OptionError: a batch of no size, or one too small for its statistics.
        ConversionError: no such loss, parameter of a loss, BatchNorm policy or number of bits.
    """
    try:
        _BATCH(batch_size, "batch_size")
    except Broken as exc:
        raise OptionError(f"allowed is {exc.allowed}", {"batch_size": batch_size}) from exc
    check_policy(batch_norm)
    if batch_norm == "batch" and batch_size == 1:
        raise OptionError(
            "one example has no statistics of a batch; take 2 or more, or the policy frozen or group",
            {"batch_norm": batch_norm, "batch_size": batch_size},
        )
    check_bits(frozen_bits)
    for one in loss.values() if isinstance(loss, Mapping) else [loss]:
        given = one[0] if isinstance(one, tuple) else one
        if isinstance(given, str):
            find_loss(given)


def check_frozen(bits: int | None, forward: Forward, roles: Mapping[str, Role]) -> None:
    """Raise OptionError where frozen weights are to be stored in few bits and nothing is frozen."""
    if bits and "frozen" not in roles.values() and not has_weights(forward.graph):
        raise OptionError(
            "every parameter is trained, so nothing is frozen; train less or leave it out",
            {"frozen_bits": bits},
        )
