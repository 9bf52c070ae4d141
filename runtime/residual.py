# SPDX-License-Identifier: Apache-2.0
"""The error-feedback residual on disk, so that a restart loses nothing that was left out of an update.

The file holds one vector, or two with momentum correction. Losing a residual costs a little accuracy, sending
a wrong one costs more, so a file in doubt is dropped and logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgefl.delta.feedback import Residual, carry
from edgefl.parameters import Arrays, Schema
from edgefl.runtime.owned import OwnedFile

MAX_AGE = 16
"""Versions a device may miss before its residual means nothing any more."""

_NAME, _MOMENTUM = "residual", "momentum"
_log = logging.getLogger(__name__)


class ResidualStore:
    """One device's residual, in one file."""

    def __init__(self, path: Path, max_age: int = MAX_AGE, owner: str = "") -> None:
        """
        Args:
            owner: which model in which federation; a residual of another is set aside.
        """
        self._file, self._max_age = OwnedFile(Path(path), owner), max_age

    def load(self, schema: Schema, base_version: int) -> Residual | None:
        """What earlier updates left out, None where there is none that applies.

        A file that is damaged, of another schema, from a later version, or more than `max_age` versions old
        is logged and counts as none. Never raises.
        """
        kept = self._file.load(8 * schema.size)
        if kept is None:
            return None
        try:
            found = _residual(*kept)
        except ValueError as exc:
            _log.warning("residual %s dropped: %s", self._file.path, exc)
            return None
        applies = carry(found, schema.id, base_version, self._max_age)
        if applies is None:
            _log.info(
                "residual %s of schema %s version %d dropped: it does not apply to schema %s version %d",
                self._file.path, found.schema_id.hex(), found.base_version, schema.id.hex(), base_version,
            )  # fmt: skip
        return applies

    def save(self, residual: Residual) -> None:
        """Replace the file in one step, flushed to disk; raises OSError where the disk refuses."""
        arrays = {_NAME: np.ascontiguousarray(residual.vector, np.float32)}
        if residual.momentum is not None:
            arrays[_MOMENTUM] = np.ascontiguousarray(residual.momentum, np.float32)
        said = {"schema": residual.schema_id.hex(), "version": str(residual.base_version)}
        self._file.save(arrays, said)

    def clear(self) -> None:
        """Forget the residual."""
        self._file.path.unlink(missing_ok=True)


def _residual(metadata: Mapping[str, str], arrays: Arrays) -> Residual:
    vector, momentum = arrays.get(_NAME), arrays.get(_MOMENTUM)
    if vector is None or any(v.ndim != 1 or v.dtype != np.float32 for v in arrays.values()):
        raise ValueError(f"no float32 vector {_NAME!r} in it, or something else")
    if momentum is not None and momentum.shape != vector.shape:
        raise ValueError(f"{len(vector)} values with a momentum of {len(momentum)}")
    schema_id, version = bytes.fromhex(metadata.get("schema", "")), int(metadata.get("version", ""))
    return Residual(vector, schema_id, version, momentum)
