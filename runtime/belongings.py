# SPDX-License-Identifier: Apache-2.0
"""What a device keeps for itself: residual, what its algorithm remembers, personal parameters and buffers,
training that was stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgefl.bundle import Bundle
from edgefl.delta import Residual
from edgefl.parameters import Arrays, Schema
from edgefl.runtime.algorithms import Drift
from edgefl.runtime.checkpoint import Checkpoint
from edgefl.runtime.owned import OwnedFile, model_key
from edgefl.runtime.residual import ResidualStore

log = logging.getLogger("edgefl.client")

RESIDUAL, PERSONAL, CHECKPOINT = "residual.safetensors", "personal.safetensors", "checkpoint.safetensors"
DRIFT = "drift.safetensors"
_DRIFT, _ALGORITHM = "drift", "algorithm"

_LOSSES_BYTES = 16 << 20
_COPIES = 16
"""Most that an update rule keeps beside parameters, in their sizes."""


@dataclass(frozen=True)
class Belongings:
    """The files of one model in one federation, in one folder.

    Attributes:
        owner: which model in which federation.
        own: shapes of personal parameters and updated buffers by name.
        trained: bytes of all that steps change.
    """

    folder: Path
    owner: str
    own: Mapping[str, tuple[int, ...]]
    trained: int

    @staticmethod
    def of(folder: Path, bundle: Bundle) -> Belongings:
        """Those of a model, before its federation is known."""
        updated = bundle.manifest.updated
        changing = [p for p in bundle.manifest.parameters if p.trained or p.name in updated]
        own = {p.name: p.shape for p in changing if p.role != "shared"}
        return Belongings(folder, model_key(bundle), own, sum(8 * p.size for p in changing))

    def of_federation(self, federation: str) -> Belongings:
        """Those of the same model in a federation."""
        return replace(self, owner=f"{self.owner}-{federation}")

    def within(self, folder: Path) -> Belongings:
        """The same files in another folder."""
        return replace(self, folder=folder)

    def residual(self, schema: Schema, base_version: int) -> Residual | None:
        """What earlier updates left out, as `ResidualStore.load`."""
        return self._residual.load(schema, base_version)

    def personal(self) -> Arrays | None:
        """Personal parameters and updated buffers as the last round left them, None before the first."""
        found = self._personal.load(self.trained) if self.own else None
        if found is None:
            return None
        values = found[1]
        if {name: value.shape for name, value in values.items()} != dict(self.own):
            log.warning("%s dropped: its parameters are not the model's", self._personal.path)
            return None
        return values

    def drift(self, schema: Schema, algorithm: str) -> Drift | None:
        """What the latest accepted update left of `Work.drift`, None before the first.

        What another algorithm remembered is dropped.
        """
        found = self._drift.load(4 * schema.size)
        if found is None:
            return None
        said, vector = found[0].get(_ALGORITHM, ""), found[1].get(_DRIFT)
        if said != algorithm or vector is None or vector.shape != (schema.size,):
            log.warning("%s dropped: the rounds go by %s now", self._drift.path, algorithm)
            self._drift.path.unlink(missing_ok=True)
            return None
        return Drift(said, np.asarray(vector, np.float32))

    def put(self, residual: Residual | None, personal: Arrays, drift: Drift | None = None) -> None:
        """Store what there is of each; raises OSError where the disk refuses."""
        if drift is not None:
            self._drift.save({_DRIFT: drift.vector}, {_ALGORITHM: drift.algorithm})
        if residual is not None:
            self._residual.save(residual)
        if personal:
            self._personal.save(personal, {})

    # -- training under way

    def checkpoint(self, assignment: str) -> Checkpoint | None:
        """Where training for an assignment stopped; None where it did not. That for another is dropped."""
        found = self._checkpoint.load(_COPIES * self.trained + _LOSSES_BYTES)
        if found is None:
            return None
        metadata, arrays = found
        try:
            if metadata["assignment"] == assignment:
                return Checkpoint.of_arrays(metadata["subject"], arrays, float(metadata["seconds"]))
        except (KeyError, ValueError) as exc:
            log.warning("%s dropped: %s", self._checkpoint.path, exc)
        self.drop_checkpoint()
        return None

    def put_checkpoint(self, assignment: str, made: Checkpoint) -> None:
        """Store where training for an assignment is; raises DiskFull where there is no room."""
        said = {"assignment": assignment, "subject": made.subject, "seconds": repr(made.seconds)}
        self._checkpoint.save(made.arrays(), said)

    def drop_checkpoint(self) -> None:
        """Training has come to its end, or begins anew."""
        self._checkpoint.path.unlink(missing_ok=True)

    @property
    def _checkpoint(self) -> OwnedFile:
        return OwnedFile(self.folder / CHECKPOINT, self.owner)

    @property
    def _residual(self) -> ResidualStore:
        return ResidualStore(self.folder / RESIDUAL, owner=self.owner)

    @property
    def _drift(self) -> OwnedFile:
        return OwnedFile(self.folder / DRIFT, self.owner)

    @property
    def _personal(self) -> OwnedFile:
        return OwnedFile(self.folder / PERSONAL, self.owner)
