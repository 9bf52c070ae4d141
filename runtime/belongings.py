# SPDX-License-Identifier: Apache-2.0
"""What a device keeps for itself from round to round: its residual, personal parameters and buffers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgefl.bundle import Bundle
from edgefl.delta import Residual
from edgefl.parameters import Arrays, Schema
from edgefl.runtime.owned import OwnedFile, model_key
from edgefl.runtime.residual import ResidualStore

log = logging.getLogger("edgefl.client")

RESIDUAL, PERSONAL = "residual.safetensors", "personal.safetensors"


@dataclass(frozen=True)
class Belongings:
    """The files of one model in one federation, in one folder.

    Attributes:
        owner: which model in which federation.
        own: shapes of personal parameters and updated buffers by name.
    """

    folder: Path
    owner: str
    own: Mapping[str, tuple[int, ...]]

    @staticmethod
    def of(folder: Path, bundle: Bundle) -> Belongings:
        """Those of a model, before its federation is known."""
        manifest = bundle.manifest
        own = {
            p.name: p.shape for p in manifest.parameters if p.role == "personal" or p.name in manifest.updated
        }
        return Belongings(folder, model_key(bundle), own)

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
        limit = sum(8 * _size(shape) for shape in self.own.values())
        found = self._personal.load(limit) if self.own else None
        if found is None:
            return None
        values = found[1]
        if {name: value.shape for name, value in values.items()} != dict(self.own):
            log.warning("%s dropped: its parameters are not the model's", self._personal.path)
            return None
        return values

    def put(self, residual: Residual | None, personal: Arrays) -> None:
        """Store what there is of both; raises OSError where the disk refuses."""
        if residual is not None:
            self._residual.save(residual)
        if personal:
            self._personal.save(personal, {})

    @property
    def _residual(self) -> ResidualStore:
        return ResidualStore(self.folder / RESIDUAL, owner=self.owner)

    @property
    def _personal(self) -> OwnedFile:
        return OwnedFile(self.folder / PERSONAL, self.owner)


def _size(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
