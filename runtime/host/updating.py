# SPDX-License-Identifier: Apache-2.0
"""A training step by an update task of Core ML (`MLUpdateTask`) on an updatable model.

A task shows no gradients, only what its own SGD made of the parameters. At a rate of 1, without momentum, one
mini-batch takes each parameter to itself less its gradient. So a task is a step like any other: it is proved
on the golden batch, and update rule, clipping and all else stay the runtime's.

What crosses to the engine, beside the examples that count by the model's own names: `LAYER/weights` and
`LAYER/biases` as the layer has them, and `/rate`. What comes back: the parameters after the task, and `loss`,
the mini-batch's mean before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Artifact
from edgefl.bundle.manifest import Manifest
from edgefl.errors import BackendFailure, BackendUnavailable
from edgefl.runtime.delegates.choice import Placement

Array = npt.NDArray[Any]

UPDATABLE = "updatable"
"""The kind of artifact."""

_RATE = np.float32(1.0)
"""What updatable models allow at most; a power of two, so that dividing by it rounds nothing."""


class _File(Protocol):
    @property
    def label(self) -> str: ...

    def run(self, tensors: Mapping[str, Array]) -> dict[str, Array]: ...


@dataclass(frozen=True)
class _Held:
    """Where a trained parameter is in the model.

    Attributes:
        transposed: the layer has the parameter's transpose.
    """

    parameter: str
    key: str
    shape: tuple[int, ...]
    transposed: bool

    def entering(self, value: Array) -> Array:
        return np.ascontiguousarray(value.T if self.transposed else value, np.float32)

    def leaving(self, value: Array) -> Array:
        shape = self.shape[::-1] if self.transposed else self.shape
        made: Array = value.astype(np.float32).reshape(shape)
        return made.T if self.transposed else made


class UpdateProgram:
    """The step of a bundle, by tasks of one mini-batch."""

    def __init__(self, file: _File, manifest: Manifest, artifact: Artifact, placement: Placement) -> None:
        """
        Raises:
            BackendUnavailable: the bundle does not say where its parameters are in the model.
        """
        self._file, self._own, self.placement = file, dict(artifact.inputs), placement
        self._held = _held(manifest)
        self._data = [spec.name for spec in manifest.step_inputs]

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        counted = self._counted(feeds["weight"])
        tensors = {self._own.get(name, name): feeds[name][counted] for name in self._data}
        y = feeds["y"][counted]
        tensors[self._own["y"]] = y.reshape(len(y), -1) if y.ndim == 1 else y
        tensors |= {held.key: held.entering(feeds[held.parameter]) for held in self._held}
        made = self._file.run({**tensors, "/rate": np.array([_RATE])})
        try:
            moved = {h.parameter: h.leaving(made[h.key]) for h in self._held}
            loss = made["loss"].reshape(())
        except (KeyError, ValueError) as exc:
            raise BackendFailure(f"{self._file.label} gives other parameters than it took: {exc}") from exc
        gradients = {f"grad/{name}": (feeds[name] - value) / _RATE for name, value in moved.items()}
        return {"loss": loss, **gradients}

    def _counted(self, weight: Array) -> Array:
        """Which examples count; in a task they all count alike."""
        counted: Array = weight != 0
        if len(np.unique(weight[counted])) != 1:
            raise BackendFailure(f"{self._file.label}: an update task counts examples alike, or not at all")
        return counted


def _held(manifest: Manifest) -> tuple[_Held, ...]:
    shapes = {p.name: p.shape for p in manifest.trained}
    try:
        report = manifest.report["targets"]["coreml"][UPDATABLE]
        if report["optimizer"] != "sgd":
            raise BackendUnavailable(
                f"the updatable model of {manifest.name!r} updates by {report['optimizer']}, not by sgd"
            )
        held = tuple(
            _Held(
                row[part], f"{row['layer']}/{key}", shapes[row[part]], key == "weights" and row["transposed"]
            )
            for row in report["layers"]
            for part, key in (("weight", "weights"), ("bias", "biases"))
            if row[part]
        )
    except (KeyError, TypeError) as exc:
        raise BackendUnavailable(
            f"bundle {manifest.name!r} does not say where its parameters are in its updatable model"
        ) from exc
    if shapes.keys() != {one.parameter for one in held}:
        raise BackendUnavailable(f"the updatable model of {manifest.name!r} trains other parameters")
    return held
