# SPDX-License-Identifier: Apache-2.0
"""Devices that lie, so that it can be seen what a federation bears before anybody does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.delta import Encoded, Residual
from edgefl.errors import DataError
from edgefl.options import CodingOptions
from edgefl.parameters import Vector
from edgefl.runtime.work import Coder
from edgefl.simulation.plan import Plan

_LARGEST = 1e36


@dataclass(frozen=True)
class Attack:
    """What some devices do.

    Attributes:
        names: who.
        factor: what they multiply their updates by before these are coded.
        labels: they train on wrong labels: class `c` of `C` is called `C - 1 - c`.
    """

    names: frozenset[str] = frozenset()
    factor: float = 1.0
    labels: bool = False

    @staticmethod
    def of(plan: Plan, devices: Sequence[str]) -> Attack:
        """The attack of a plan; its seed draws who takes part."""
        if not plan.attack:
            return Attack()
        order = np.random.default_rng([plan.seed, 1]).permutation(len(devices))
        names = frozenset(devices[i] for i in order[: round(plan.attackers * len(devices))])
        kind, _, factor = plan.attack.partition(":")
        return Attack(names, -1.0 if kind == "sign-flip" else float(factor or 1.0), kind == "label-flip")

    def examples(self, devices: Mapping[str, Examples], bundle: Bundle) -> Mapping[str, Examples]:
        """What devices train on; DataError where labels are to be flipped that are no classes."""
        if not self.labels:
            return devices
        return {name: _flipped(e, bundle) if name in self.names else e for name, e in devices.items()}

    def code(self, code: Coder) -> Coder:
        """What codes the updates of all devices."""
        if self.factor == 1.0:
            return code

        def coded(
            delta: Vector, coding: CodingOptions, *, device: str, **rest: Any
        ) -> tuple[Encoded, Residual | None]:
            if device in self.names:
                delta = np.clip(np.float32(self.factor) * delta, -_LARGEST, _LARGEST)
            return code(delta, coding, device=device, **rest)

        return coded


def _flipped(examples: Examples, bundle: Bundle) -> Examples:
    labels = examples.y if isinstance(examples.y, dict) else {bundle.manifest.label.name: examples.y}
    counts = {head.label.name: head.output.shape[-1] for head in bundle.manifest.heads}
    made = {name: _other(np.asarray(value), counts.get(name)) for name, value in labels.items()}
    return replace(examples, y=made if isinstance(examples.y, dict) else next(iter(made.values())))


def _other(labels: Any, classes: int | None) -> Any:
    if classes is None or labels.dtype.kind not in "iu":
        raise DataError("label-flip needs class labels; sign-flip and scale:FACTOR do without")
    return np.where((labels >= 0) & (labels < classes), classes - 1 - labels, labels).astype(labels.dtype)
