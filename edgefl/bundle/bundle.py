# SPDX-License-Identifier: Apache-2.0
"""A model that can be trained anywhere, as one value and one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgefl.bundle import manifest_json
from edgefl.bundle.archive import MAX_BUNDLE_BYTES, pack, unpack
from edgefl.bundle.manifest import (
    ALSO,
    EXTENSIONS,
    KINDS,
    Artifact,
    Entry,
    Head,
    Manifest,
    TensorSpec,
    extension,
)
from edgefl.bundle.missing import why_missing
from edgefl.bundle.publisher import ANYONE, FILE, WHOLE, Publishers, Signature, digest, sign
from edgefl.bundle.safety import check_artifact
from edgefl.errors import (
    BundleEntry,
    BundleError,
    BundleHash,
    BundleSignature,
    BundleTooLarge,
    DataShape,
    DataType,
    ManifestError,
)
from edgefl.files import write_atomically
from edgefl.identity import Signer
from edgefl.parameters import Arrays, Parameter, Schema
from edgefl.tensorfile import read_tensors, write_tensors

MANIFEST = "manifest.json"
_WEIGHTS_INSIDE = ("infer-int8", "updatable")
FEED = "feed/"
"""Before the names of a proof's arrays that graphs are fed with."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArtifactData:
    """An artifact on its way into a bundle; `inputs` and `outputs` map contract names to its own names."""

    target: str
    kind: str
    data: bytes
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Bundle:
    """A manifest and the bytes of every entry it lists. Immutable: each change gives a new bundle.

    Attributes:
        signature: a publisher's, of this bundle or of the one it is a slice of. Whatever else is made of one
            has none.
    """

    manifest: Manifest
    _files: Mapping[str, bytes | memoryview]
    signature: Signature | None = None

    def __repr__(self) -> str:
        m, size = self.manifest, sum(map(len, self._files.values()))
        targets = ", ".join(m.targets) or "no target"
        return (
            f"<Bundle {m.name!r} version {m.model_version}: {len(m.parameters)} parameters, "
            f"{m.schema.size} values shared, {targets}, {size} bytes>"
        )

    # -- coming in

    @staticmethod
    def open(source: str | os.PathLike[str] | bytes, publishers: Publishers = ANYONE) -> Bundle:
        """Read and verify a bundle from a path or from its bytes, trusting nothing.

        Args:
            publishers: whose signature it must have, which is verified before anything in it is looked at.

        Raises:
            BundleSignature: none of the publishers has signed it, or not as it is now.
            BundleError: one subclass per way to be wrong (see `edgefl.errors`), and BundleError itself where
                the file cannot be read.
            TensorFileError: the parameters are not in the safetensors layout.
        """
        files = unpack(source if isinstance(source, bytes) else _read(Path(source)))
        if MANIFEST not in files:
            raise BundleEntry(f"bundle has no {MANIFEST}")
        said, signature = bytes(files.pop(MANIFEST)), None
        if FILE in files:
            signature = Signature.from_bytes(bytes(files.pop(FILE)))
        name = "the bundle" if isinstance(source, bytes) else str(source)
        publishers.check(said, signature, name)
        manifest = manifest_json.decode(said)
        try:
            _verify(manifest, files)
        except BundleError as exc:
            if signature is None or not publishers:
                raise
            raise BundleSignature(f"{name} is not as {signature.key_id} signed it: {exc}") from exc
        for artifact in manifest.artifacts:
            check_artifact(artifact.target, artifact.kind, files[artifact.path], f"entry {artifact.path!r}")
        bundle = Bundle(manifest, files, signature)
        _check_values(manifest, bundle.parameters())
        return bundle

    @staticmethod
    def create(
        *,
        name: str,
        parameters: Iterable[Parameter],
        values: Arrays,
        inputs: Iterable[TensorSpec],
        step_inputs: Iterable[TensorSpec],
        label: TensorSpec,
        output: TensorSpec,
        loss: str,
        activation: str = "",
        batch_size: int,
        artifacts: Iterable[ArtifactData],
        golden: Arrays,
        defaults: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        report: Mapping[str, Any] | None = None,
        model_version: int = 0,
        more_heads: Iterable[Head] = (),
        updated: Iterable[str] = (),
        seeded: bool = False,
    ) -> Bundle:
        """Make a bundle; equal arguments give equal bytes.

        Args:
            values: every trained parameter, and those frozen ones and buffers that are worth keeping.
            activation: what `infer` ends in beyond the scores the loss takes, one of `ACTIVATIONS`.
            golden: one batch by contract names: the data inputs, `y` and `weight`, and `seed` where there is
                one.
            more_heads, updated, seeded: see `Manifest`.

        Raises:
            ManifestError: the arguments contradict one another.
        """
        contents = {"parameters": write_tensors(values), "golden": write_tensors(golden)}
        files = {manifest_json.FILES[key]: data for key, data in contents.items()}
        manifest = Manifest(
            name=name,
            model_version=model_version,
            parameters=tuple(parameters),
            inputs=tuple(inputs),
            step_inputs=tuple(step_inputs),
            label=label,
            output=output,
            loss=loss,
            activation=activation,
            batch_size=batch_size,
            artifacts=(),
            files={key: _entry(manifest_json.FILES[key], data) for key, data in contents.items()},
            defaults=dict(defaults or {}),
            provenance=dict(provenance or {}),
            report=dict(report or {}),
            more_heads=tuple(more_heads),
            updated=tuple(updated),
            seeded=seeded,
        )
        _check_values(manifest, values)
        return Bundle(manifest, files).with_artifacts(artifacts)

    # -- looking

    def schema(self) -> Schema:
        """The shared parameters: what an update covers."""
        return self.manifest.schema

    def parameters(self) -> dict[str, Array]:
        """Parameter values by name in manifest order (copies). A slice holds the trained ones and updated
        buffers only."""
        values = read_tensors(self._content("parameters"))
        return {p.name: values[p.name] for p in self.manifest.parameters if p.name in values}

    def golden(self) -> dict[str, Array]:
        """One batch of known examples by contract names."""
        return read_tensors(self._content("golden"))

    def proof(self) -> dict[str, Array]:
        """What an engine is judged by, as `edgefl.proof` reads it; empty where the bundle has none."""
        return read_tensors(self._content("proof")) if "proof" in self.manifest.files else {}

    def artifact(self, target: str, kind: str) -> bytes:
        """Bytes of one artifact; BundleEntry where the bundle has none."""
        found = self.manifest.find(target, kind)
        if found is None:
            raise BundleEntry(why_missing(self.manifest, target, kind))
        return bytes(self._files[found.path])

    @property
    def digest(self) -> str:
        """What stands for this bundle among all others: the SHA-256 of its `manifest.json`."""
        return digest(self._said())

    @property
    def covered(self) -> bool:
        """Whether it has a signature that is about this very bundle, whoever made it."""
        return self.signature is not None and self.signature.covers(self._said())

    # -- going out

    def to_bytes(self) -> bytes:
        """The file's bytes, the same for the same bundle on every machine."""
        files = {path: bytes(data) for path, data in self._files.items()}
        if self.signature is not None:
            files[FILE] = self.signature.to_bytes()
        return pack({MANIFEST: self._said(), **files})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file in one step, so that readers see the old one or the new one."""
        write_atomically(Path(path), self.to_bytes())

    # -- changing

    def with_parameters(self, values: Arrays, version: int) -> Bundle:
        """The same model with some or all parameter values replaced.

        Int8 exports and updatable models hold the old weights inside, so they are left out. A proof keeps the
        values it was made with; `edgefl.proof.renewed` makes it anew.

        Raises:
            DataShape, DataType: a value does not fit its parameter, or there is no such parameter.
        """
        old = self.parameters()
        known = {p.name: p for p in self.manifest.parameters}
        merged = {**old, **{n: _fitting(known.get(n), n, value) for n, value in values.items()}}
        changed = self._with_file("parameters", merged)
        if proof := self.proof():
            fed = {*(p.name for p in self.manifest.trained), *self.manifest.updated}.intersection(values)
            moved = {n: v for n, v in old.items() if n in fed and not np.array_equal(v, merged[n])}
            changed = changed._with_file("proof", {**{FEED + n: v for n, v in moved.items()}, **proof})
        changed = replace(changed, manifest=replace(changed.manifest, model_version=version))
        return changed._keeping(a for a in self.manifest.artifacts if a.kind not in _WEIGHTS_INSIDE)

    def with_proof(self, proof: Arrays, golden: Arrays | None = None) -> Bundle:
        """The same model with another proof, and another golden batch where one is given."""
        changed = self if golden is None else self._with_file("golden", golden)
        return changed._with_file("proof", proof)

    def with_artifacts(self, artifacts: Iterable[ArtifactData]) -> Bundle:
        """The same model with artifacts added, or replaced where target and kind are the same."""
        files = dict(self._files)
        table = {(a.target, a.kind): a for a in self.manifest.artifacts}
        for new in artifacts:
            made = _artifact(new)
            check_artifact(new.target, new.kind, new.data, f"entry {made.path!r}")
            table[made.target, made.kind] = made
            files[made.path] = new.data
        manifest = replace(self.manifest, artifacts=tuple(table[key] for key in sorted(table)))
        # Through the decoder, so that nothing can be made that could not be opened.
        return Bundle(manifest_json.decode(manifest_json.encode(manifest)), files)

    def signed(self, signer: Signer) -> Bundle:
        """The same bundle with a publisher's signature of it, and of each slice a server may make of it."""
        forms = {WHOLE: self, **{target: self.slice(target) for target in self.manifest.targets}}
        return replace(self, signature=sign(signer, {form: each._said() for form, each in forms.items()}))

    def with_provenance(self, **facts: str) -> Bundle:
        """The same model with more said about where it comes from."""
        provenance = {**self.manifest.provenance, **facts}
        return replace(self, manifest=replace(self.manifest, provenance=provenance), signature=None)

    def slice(self, target: str) -> Bundle:
        """What a device of one target downloads: its artifacts, and only the parameters that are trained.

        Raises:
            BundleEntry: the bundle has nothing for the target.
        """
        if target not in self.manifest.targets:
            have = ", ".join(self.manifest.targets) or "none"
            raise BundleEntry(
                f"bundle {self.manifest.name!r} has nothing for target {target!r}; it has {have}"
            )
        values = self.parameters()
        kept = [*(p.name for p in self.manifest.trained), *self.manifest.updated]
        light = self._with_file("parameters", {name: values[name] for name in kept})
        needed = (target, *ALSO.get(target, ()))
        cut = light._keeping(a for a in self.manifest.artifacts if a.target in needed)
        return replace(cut, signature=self.signature)

    # -- inside

    def _said(self) -> bytes:
        return manifest_json.encode(self.manifest)

    def _content(self, key: str) -> bytes | memoryview:
        return self._files[self.manifest.files[key].path]

    def _with_file(self, key: str, values: Arrays) -> Bundle:
        data = write_tensors(values)
        entry = _entry(manifest_json.FILES[key], data)
        manifest = replace(self.manifest, files={**self.manifest.files, key: entry})
        return Bundle(manifest, {**self._files, entry.path: data})

    def _keeping(self, artifacts: Iterable[Artifact]) -> Bundle:
        manifest = replace(self.manifest, artifacts=tuple(artifacts))
        return Bundle(manifest, {entry.path: self._files[entry.path] for entry in manifest.entries()})


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BUNDLE_BYTES:
            raise BundleTooLarge(f"{path} has {size} bytes, allowed {MAX_BUNDLE_BYTES}")
        return path.read_bytes()
    except OSError as exc:
        raise BundleError(f"cannot read the bundle {path}: {exc}") from exc


def _verify(manifest: Manifest, files: Mapping[str, memoryview]) -> None:
    """Insist that the files are those of the manifest, no more, no less, byte for byte."""
    listed = {entry.path: entry for entry in manifest.entries()}
    missing, unknown = sorted(set(listed) - set(files)), sorted(set(files) - set(listed))
    if missing or unknown:
        raise BundleEntry(f"bundle differs from its manifest: missing entries {missing}, unlisted {unknown}")
    for path, entry in listed.items():
        if len(files[path]) != entry.size:
            raise BundleHash(f"entry {path!r} has {len(files[path])} bytes, the manifest says {entry.size}")
        if hashlib.sha256(files[path]).hexdigest() != entry.sha256:
            raise BundleHash(f"entry {path!r} differs from the manifest's sha256 {entry.sha256}")


def _check_values(manifest: Manifest, values: Arrays) -> None:
    known = {p.name: p for p in manifest.parameters}
    needed = [*(p.name for p in manifest.trained), *manifest.updated]
    missing = [name for name in needed if name not in values]
    unknown = sorted(set(values) - set(known))
    if missing or unknown:
        raise ManifestError(f"parameter values: missing {missing}, not in the manifest {unknown}")
    for name, value in values.items():
        try:
            _fitting(known[name], name, value)
        except (DataShape, DataType) as exc:
            raise ManifestError(str(exc)) from exc


def _fitting(parameter: Parameter | None, name: str, value: Array) -> Array:
    if parameter is None:
        raise DataShape(f"the bundle has no parameter {name!r}")
    if tuple(np.shape(value)) != parameter.shape:
        raise DataShape(f"parameter {name!r} has shape {np.shape(value)}, expected {parameter.shape}")
    if str(value.dtype) != parameter.dtype:
        raise DataType(f"parameter {name!r} has dtype {value.dtype}, expected {parameter.dtype}")
    return value


def _artifact(new: ArtifactData) -> Artifact:
    if new.target not in EXTENSIONS or new.kind not in KINDS:
        targets, kinds = ", ".join(EXTENSIONS), ", ".join(KINDS)
        raise ManifestError(f"artifact {new.target}/{new.kind}: targets are {targets}; kinds are {kinds}")
    entry = _entry(f"artifacts/{new.target}/{new.kind}.{extension(new.target, new.kind)}", new.data)
    return Artifact(new.target, new.kind, entry, dict(new.inputs), dict(new.outputs))


def _entry(path: str, data: bytes) -> Entry:
    return Entry(path, hashlib.sha256(data).hexdigest(), len(data))
