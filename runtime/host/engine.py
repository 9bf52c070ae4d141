# SPDX-License-Identifier: Apache-2.0
"""An app's engine as a backend: "run this file on these tensors"."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from edgefl.bundle import Bundle, Manifest
from edgefl.bundle.archive import unpack_package
from edgefl.bundle.manifest import EXTENSIONS
from edgefl.errors import BackendFailure, BackendUnavailable, BundleError, TensorFileError
from edgefl.files import write_atomically
from edgefl.proof import results
from edgefl.runtime.backends.base import Engine, Names, Program, artifact_of
from edgefl.runtime.delegates.choice import Placement
from edgefl.runtime.host.updating import UPDATABLE, UpdateProgram
from edgefl.strictjson import Fields, parse
from edgefl.tensorfile import read_tensors, write_tensors

Array = npt.NDArray[Any]
_PACKAGE = ".zip"


class HostEngine(Protocol):
    """What an app implements, in whatever language it is written in.

    Results may be of the language's own types: `str` and `bytes` are asked of them.
    """

    def describe(self) -> str:
        """JSON: `{"name": "litert", "version": "1.4.0", "target": "tflite", "delegate": "xnnpack"}`.

        `target` says whose artifacts it runs: `tflite`, `onnx` or `coreml`. `delegate` may be left out.
        `"trains": "updatable"` says that it trains by update tasks on Core ML's updatable models, see
        `edgefl.runtime.host.updating`, and runs the other files as any engine does.
        """
        ...

    def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
        """Run a file.

        Args:
            artifact: the file's path; the same path is always the same file, so what was loaded may be kept.
            signature: the graph's name in files that hold several: `step`, `features` or `infer`.
            tensors: every input by the file's own name, as `edgefl.tensorfile` writes them.

        Returns:
            Every output by the file's own name, written so too.
        """
        ...


class HostBackend(Engine):
    """A `Backend` that hands files and tensors to an app's engine."""

    def __init__(self, engine: HostEngine, folder: Path) -> None:
        """
        Args:
            folder: where artifacts are put as files.

        Raises:
            BackendUnavailable: the engine does not say what it is.
        """
        try:
            row = Fields(
                parse(str(engine.describe()).encode(), BackendFailure, "engine"), "engine", BackendFailure
            )
            self.name = row.text("name")
            self.version = row.text("version")
            self.target = row.choice("target", EXTENSIONS)
            self._delegate = row.text("delegate") if row.has("delegate") else "cpu"
            self._trains = row.choice("trains", ("step", UPDATABLE)) if row.has("trains") else "step"
        except Exception as exc:  # what a foreign language throws has no common base
            raise BackendUnavailable(f"the app's engine does not say what it is: {exc}") from exc
        self._engine, self._folder = engine, folder

    def load(self, bundle: Bundle, kind: str) -> Program:
        """See `Backend.load`; raises BackendFailure where the file cannot be put on disk."""
        by_task = kind == "step" and self._trains == UPDATABLE
        artifact = artifact_of(bundle, self.target, UPDATABLE if by_task else kind)
        path = self._on_disk(artifact.path, bundle.artifact(self.target, artifact.kind))
        label = f"{self.name} {self.version} on {artifact.path}"
        file = HostFile(self._engine, path, artifact.kind, label)
        placement = Placement(kind, self._delegate)
        if by_task:
            return UpdateProgram(file, bundle.manifest, artifact, placement)
        return _HostProgram(file, Names.of(artifact), _shapes(bundle.manifest, kind), placement)

    def _on_disk(self, name: str, data: bytes) -> str:
        """The path of an artifact's own file; its name changes with its bytes."""
        suffix = name.partition(".")[2]
        place = self._folder / f"{hashlib.sha256(data).hexdigest()[:32]}.{suffix.removesuffix(_PACKAGE)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if suffix.endswith(_PACKAGE):
                _unpacked(data, place)
            elif not (place.exists() and place.read_bytes() == data):
                write_atomically(place, data)
        except (OSError, BundleError) as exc:
            raise BackendFailure(f"cannot put {name} in {self._folder}: {exc}") from exc
        return str(place)


def _shapes(manifest: Manifest, kind: str) -> dict[str, tuple[int, ...]]:
    """Of a graph's results, as the contract has them: Core ML's arrays have one to five axes."""
    of = {p.name: p.shape for p in manifest.parameters}
    given = (*manifest.step_inputs, *(head.output for head in manifest.heads))
    of |= {"loss": (), **{spec.name: spec.shape for spec in given}}
    return {name: of[name.removeprefix("grad/").removeprefix("buffer/")] for name in results(manifest, kind)}


def _unpacked(data: bytes, place: Path) -> None:
    """A package as the folder its platform takes, complete or not there at all."""
    if place.exists():
        return
    work = Path(tempfile.mkdtemp(prefix=".package-", dir=place.parent))
    try:
        os.replace(unpack_package(data, work), place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass(frozen=True)
class HostFile:
    """A file on an app's engine.

    Attributes:
        label: engine and file, for errors.
    """

    engine: HostEngine
    path: str
    signature: str
    label: str

    def run(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by the file's own names; raises BackendFailure where there are none."""
        try:
            made = bytes(self.engine.run(self.path, self.signature, write_tensors(tensors)))
        except Exception as exc:  # what a foreign language throws has no common base
            raise BackendFailure(f"{self.label}: {exc}") from exc
        try:
            return read_tensors(made)
        except TensorFileError as exc:
            raise BackendFailure(f"{self.label} gives no tensors: {exc}") from exc


class _HostProgram:
    def __init__(
        self, file: HostFile, names: Names, expected: Mapping[str, tuple[int, ...]], placement: Placement
    ) -> None:
        self._file, self._names, self._expected, self.placement = file, names, expected, placement

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        made = self._file.run(self._names.to_own(feeds))
        found = {self._names.to_contract(name): value for name, value in made.items()}
        if missing := self._expected.keys() - found.keys():
            raise BackendFailure(f"{self._file.label} gives no {min(missing)!r}, only {sorted(found)[:5]}")
        return {name: _as_told(value, self._expected.get(name)) for name, value in found.items()}


def _as_told(value: Array, shape: tuple[int, ...] | None) -> Array:
    """An array in a shape of as many elements; files for one example keep theirs."""
    return value if shape is None or value.size != math.prod(shape) else value.reshape(shape)
