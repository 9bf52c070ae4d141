# SPDX-License-Identifier: Apache-2.0
"""Opens `.mlpackage` folders and `.mlmodel` files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.coreml_evaluator.blobs import MAX_FILE, Array, Blobs
from tests.coreml_evaluator.errors import MalformedFile, TooLarge
from tests.coreml_evaluator.protos import messages

_MAX_MANIFEST = 1 << 20
_WEIGHTS = "@model_path/weights/"


class Package:
    """A saved model.

    Attributes:
        spec: its Model message.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = _specification(Path(path)) if Path(path).is_dir() else Path(path)
        if self._file.stat().st_size > MAX_FILE:
            raise TooLarge(f"{path}: {self._file.stat().st_size} bytes, allowed {MAX_FILE}")
        self.spec = messages("Model_pb2").Model()
        try:
            self.spec.ParseFromString(self._file.read_bytes())
        except Exception as exc:  # DecodeError: its module moves between protobuf releases
            raise MalformedFile(f"{path}: no Core ML specification: {exc}") from exc
        self._blobs: dict[str, Blobs] = {}

    def blob(self, name: str, offset: int, dtype: str, count: int) -> Array:
        """`count` values of a type from one of the package's weight files."""
        if name not in self._blobs:
            base = name.removeprefix(_WEIGHTS)
            if not name.startswith(_WEIGHTS) or "/" in base or base in ("", ".", ".."):
                raise MalformedFile(f"weights in {name!r}, expected {_WEIGHTS}...")
            path = self._file.parent / "weights" / base
            if not path.is_file():
                raise MalformedFile(f"weights in {name!r}, which is not there")
            self._blobs[name] = Blobs(path)
        return self._blobs[name].read(offset, dtype, count)


def _specification(folder: Path) -> Path:
    manifest = folder / "Manifest.json"
    if not manifest.is_file() or manifest.stat().st_size > _MAX_MANIFEST:
        raise MalformedFile(f"{folder.name}: no Manifest.json of a sensible size")
    try:
        content: Any = json.loads(manifest.read_text())
        item = content["itemInfoEntries"][content["rootModelIdentifier"]]
        path = (folder / "Data" / item["path"]).resolve()
    except (ValueError, KeyError, TypeError) as exc:
        raise MalformedFile(f"{folder.name}: Manifest.json names no root model: {exc}") from exc
    if not path.is_relative_to((folder / "Data").resolve()) or not path.is_file():
        raise MalformedFile(f"{folder.name}: the root model {item['path']!r} is not in the package")
    return path
