# SPDX-License-Identifier: Apache-2.0
"""Files that belong to one model in one federation, and what becomes of those that belong to another.

A file is a tensor file whose metadata names its owner and holds a BLAKE2b checksum. One that is damaged
counts as none. One of another owner is never used either, but what is in it may still be worth something to
whoever made it, so it is set aside.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import TensorFileError
from edgefl.files import write_atomically
from edgefl.parameters import Arrays
from edgefl.strictjson import canonical
from edgefl.tensorfile import MAX_HEADER_BYTES, read_metadata, read_tensors, write_tensors

log = logging.getLogger("edgefl.client")
Array = npt.NDArray[Any]

SET_ASIDE = "set-aside"
_OWNER, _CHECKSUM = "owner", "checksum"


def model_key(bundle: Bundle) -> str:
    """16 hexadecimal digits that tell one model from another: its parameters, and where they begin.

    The same for every slice of a bundle, so that a device may change its engine.
    """
    manifest, values = bundle.manifest, bundle.parameters()
    kept = [p for p in manifest.parameters if p.trained or p.name in manifest.updated]
    table = [[p.name, list(p.shape), p.dtype, p.role] for p in kept]
    said = [manifest.name, manifest.loss, manifest.files["golden"].sha256, table]
    digest = hashlib.blake2b(canonical(said), digest_size=8)
    for p in kept:
        digest.update(np.ascontiguousarray(values[p.name]).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class OwnedFile:
    """One such file.

    Attributes:
        owner: which model in which federation.
    """

    path: Path
    owner: str = ""

    def save(self, arrays: Arrays, metadata: Mapping[str, str]) -> None:
        """Replace the file in one step, flushed to disk; raises OSError where the disk refuses."""
        named = {**metadata, _OWNER: self.owner}
        named[_CHECKSUM] = _checksum(arrays, named)
        write_atomically(self.path, write_tensors(arrays, named))

    def load(self, limit: int) -> tuple[dict[str, str], dict[str, Array]] | None:
        """Metadata and finite arrays of at most `limit` bytes; None where there are none that can be used.

        Never raises: what is wrong with a file is logged.
        """
        try:
            metadata, arrays = self._read(limit + MAX_HEADER_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TensorFileError) as exc:
            log.warning("%s dropped: %s", self.path, exc)
            return None
        if metadata.pop(_OWNER, None) != self.owner:
            set_aside(self.path)
            return None
        return metadata, arrays

    def _read(self, limit: int) -> tuple[dict[str, str], dict[str, Array]]:
        if self.path.stat().st_size > limit:
            raise ValueError(f"it has over {limit} bytes")
        data = self.path.read_bytes()
        metadata, arrays = read_metadata(data), read_tensors(data)
        if metadata.pop(_CHECKSUM, None) != _checksum(arrays, metadata):
            raise ValueError("its checksum differs")
        if not all(np.isfinite(v).all() for v in arrays.values()):
            raise ValueError("it holds NaN or infinity")
        return metadata, arrays


def set_aside(path: Path) -> None:
    """Move a file or folder of another model or federation out of the way, in place of the one before."""
    target = path.parent / SET_ASIDE / path.name
    try:
        target.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        os.replace(path, target)
    except OSError as exc:
        log.warning("%s is of another model or federation and is not used: %s", path, exc)
        return
    log.warning("%s is of another model or federation; it is set aside as %s", path, target)


def _checksum(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(canonical(dict(metadata)), digest_size=16)
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(canonical([name, list(value.shape), value.dtype.str]))
        digest.update(value.data)
    return digest.hexdigest()
