# SPDX-License-Identifier: Apache-2.0
"""The error-feedback residual on disk, so that a restart loses nothing that was left out of an update.

The file is a tensor file with one vector, or two with momentum correction; its metadata says whose it is and
holds a BLAKE2b checksum. Losing a residual costs a little accuracy, sending a wrong one costs more, so a file
in doubt is dropped and logged.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgefl.delta.feedback import Residual, carry
from edgefl.errors import TensorFileError
from edgefl.files import write_atomically
from edgefl.parameters import Schema, Vector
from edgefl.tensorfile import MAX_HEADER_BYTES, read_metadata, read_tensors, write_tensors

MAX_AGE = 16
"""Versions a device may miss before its residual means nothing any more."""

_NAME, _MOMENTUM = "residual", "momentum"
_log = logging.getLogger(__name__)


class ResidualStore:
    """One device's residual, in one file."""

    def __init__(self, path: Path, max_age: int = MAX_AGE) -> None:
        self._path, self._max_age = Path(path), max_age

    def load(self, schema: Schema, base_version: int) -> Residual | None:
        """What earlier updates left out, None where there is none that applies.

        A file that is damaged, of another schema, from a later version, or more than `max_age` versions old
        is logged and counts as none. Never raises.
        """
        try:
            found = self._read(schema.size)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TensorFileError) as exc:
            _log.warning("residual %s dropped: %s", self._path, exc)
            return None
        kept = carry(found, schema.id, base_version, self._max_age)
        if kept is None:
            _log.info(
                "residual %s of schema %s version %d dropped: it does not apply to schema %s version %d",
                self._path, found.schema_id.hex(), found.base_version, schema.id.hex(), base_version,
            )  # fmt: skip
        return kept

    def save(self, residual: Residual) -> None:
        """Replace the file in one step, flushed to disk; raises OSError where the disk refuses."""
        vector = np.ascontiguousarray(residual.vector, np.float32)
        arrays = {_NAME: vector}
        if residual.momentum is not None:
            arrays[_MOMENTUM] = np.ascontiguousarray(residual.momentum, np.float32)
        metadata = {
            "schema": residual.schema_id.hex(),
            "version": str(residual.base_version),
            "checksum": _checksum(arrays, residual.schema_id, residual.base_version),
        }
        write_atomically(self._path, write_tensors(arrays, metadata))

    def clear(self) -> None:
        """Forget the residual."""
        self._path.unlink(missing_ok=True)

    def _read(self, size: int) -> Residual:
        limit = 8 * size + MAX_HEADER_BYTES
        if self._path.stat().st_size > limit:
            raise ValueError(f"it has over {limit} bytes")
        data = self._path.read_bytes()
        metadata, arrays = read_metadata(data), read_tensors(data)
        vector, momentum = arrays.get(_NAME), arrays.get(_MOMENTUM)
        if vector is None or any(v.ndim != 1 or v.dtype != np.float32 for v in arrays.values()):
            raise ValueError(f"no float32 vector {_NAME!r} in it, or something else")
        if momentum is not None and momentum.shape != vector.shape:
            raise ValueError(f"{len(vector)} values with a momentum of {len(momentum)}")
        schema_id, version = bytes.fromhex(metadata.get("schema", "")), int(metadata.get("version", ""))
        if metadata.get("checksum") != _checksum(arrays, schema_id, version):
            raise ValueError("its checksum differs")
        if not all(np.isfinite(v).all() for v in arrays.values()):
            raise ValueError("it holds NaN or infinity")
        return Residual(vector, schema_id, version, momentum)


def _checksum(arrays: Mapping[str, Vector], schema_id: bytes, version: int) -> str:
    digest = hashlib.blake2b(schema_id, digest_size=16)
    digest.update(version.to_bytes(16, "little", signed=True))
    for name in sorted(arrays, reverse=True):
        digest.update(arrays[name].astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
