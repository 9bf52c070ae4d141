# SPDX-License-Identifier: Apache-2.0
"""The manifest as canonical JSON, and back with nothing taken on trust."""

from __future__ import annotations

import re
from typing import Any, cast

from edgefl.bundle.archive import MAX_BUNDLE_BYTES, MAX_ENTRIES, check_path
from edgefl.bundle.manifest import (
    ACTIVATIONS,
    EXTENSIONS,
    FORMAT,
    FORMAT_VERSION,
    KINDS,
    Artifact,
    Entry,
    Head,
    Manifest,
    TensorSpec,
)
from edgefl.errors import BundleTooLarge, BundleVersion, ManifestError
from edgefl.parameters import ROLES, Parameter, Role
from edgefl.strictjson import Fields, canonical, parse, repeated
from edgefl.tensorfile import DTYPES, MAX_RANK, MAX_TENSORS

MAX_MANIFEST_BYTES = 8 << 20
MAX_ELEMENTS = MAX_BUNDLE_BYTES
MAX_FED = 1 << 28
"""Elements of one input, label or output: these are allocated at their declared size, unlike parameters."""
MAX_BATCH = 1 << 16
MAX_MODEL_VERSION = (1 << 63) - 1
FILES = {
    "parameters": "parameters.safetensors",
    "golden": "golden.safetensors",
    "proof": "proof.safetensors",
}

_DTYPES = tuple(str(dtype.newbyteorder("=")) for dtype in DTYPES.values())
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FREE = ("defaults", "provenance", "report")
_FIELDS = (
    "format", "version", "name", "model_version", "parameters", "inputs", "step_inputs", "label", "output",
    "loss", "activation", "batch_size", "artifacts", "files", *_FREE,
)  # fmt: skip
_OPTIONAL = ("heads", "updated", "seeded")


def encode(manifest: Manifest) -> bytes:
    """Canonical JSON; raises ManifestError where a free field holds what JSON cannot say."""
    try:
        return _lines(manifest.to_json())
    except (TypeError, ValueError) as exc:
        raise ManifestError(f"manifest of {manifest.name!r} cannot be written as JSON: {exc}") from exc


def decode(data: bytes) -> Manifest:
    """Parse and check a manifest.

    Raises:
        BundleTooLarge: over `MAX_MANIFEST_BYTES`, or an entry declares more than a bundle may hold.
        BundleVersion: another format version.
        BundlePath: an entry path that could leave the bundle.
        ManifestError: anything else that is not the format.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleTooLarge(f"manifest.json has {len(data)} bytes, allowed {MAX_MANIFEST_BYTES}")
    document = Fields(parse(data, ManifestError, "manifest.json"), "manifest", ManifestError)
    _check_format(document)
    manifest = _manifest(document.only(*_FIELDS, optional=_OPTIONAL))
    check(manifest)
    return manifest


def check(manifest: Manifest) -> None:
    """What holds between fields; raises ManifestError."""
    _check_unique("parameter", [p.name for p in manifest.parameters])
    _check_unique("artifact", [f"{a.target}/{a.kind}" for a in manifest.artifacts])
    _check_unique("entry", [e.path for e in manifest.entries()])
    labels, outputs = [h.label for h in manifest.heads], [h.output for h in manifest.heads]
    own = [
        *(s.name for s in labels),
        "weight",
        "seed",
        *(p.name for p in manifest.trained),
        *manifest.updated,
    ]
    for group in (manifest.inputs, manifest.step_inputs):
        _check_unique("input", [*(s.name for s in group), *own])
    _check_unique("output", [s.name for s in outputs])
    unknown = set(manifest.updated) - {p.name for p in manifest.parameters if p.role == "buffer"}
    if unknown:
        raise ManifestError(f"updated buffers {sorted(unknown)} are no parameters of the role buffer")
    for spec in (*manifest.inputs, *manifest.step_inputs, *labels, *outputs):
        if spec.shape[:1] != (manifest.batch_size,):
            raise ManifestError(
                f"{spec.name!r} has shape {spec.shape}, expected batch {manifest.batch_size} first"
            )
    for p in manifest.trained:
        if not p.dtype.startswith("float"):
            raise ManifestError(
                f"parameter {p.name!r} is {p.role} but of dtype {p.dtype}, expected floating point"
            )


def _check_format(document: Fields) -> None:
    document.choice("format", (FORMAT,))
    version = document.integer("version", 0, MAX_MODEL_VERSION)
    if version != FORMAT_VERSION:
        raise BundleVersion(
            f"bundle has format version {version}, this release reads version {FORMAT_VERSION}"
        )


def _manifest(fields: Fields) -> Manifest:
    return Manifest(
        name=fields.text("name"),
        model_version=fields.integer("model_version", 0, MAX_MODEL_VERSION),
        parameters=tuple(_parameter(f) for f in fields.objects("parameters", most=MAX_TENSORS)),
        inputs=tuple(_spec(f) for f in fields.objects("inputs", most=MAX_ENTRIES)),
        step_inputs=tuple(_spec(f) for f in fields.objects("step_inputs", most=MAX_ENTRIES)),
        label=_spec(fields.object("label")),
        output=_spec(fields.object("output")),
        loss=fields.text("loss"),
        activation=fields.choice("activation", ACTIVATIONS),
        batch_size=fields.integer("batch_size", 1, MAX_BATCH),
        artifacts=tuple(_artifact(f) for f in fields.objects("artifacts", most=MAX_ENTRIES)),
        files=_files(fields.object("files").only("parameters", "golden", optional=("proof",))),
        more_heads=tuple(_head(f) for f in fields.objects("heads", most=MAX_ENTRIES))
        if fields.has("heads")
        else (),
        updated=fields.strings("updated", most=MAX_TENSORS) if fields.has("updated") else (),
        seeded=fields.flag("seeded") if fields.has("seeded") else False,
        **{name: fields.mapping(name) for name in _FREE},
    )


def _head(fields: Fields) -> Head:
    fields.only("label", "output", "loss", "activation")
    activation = fields.choice("activation", ACTIVATIONS)
    return Head(
        _spec(fields.object("label")), _spec(fields.object("output")), fields.text("loss"), activation
    )


def _parameter(fields: Fields) -> Parameter:
    fields.only("name", "shape", "dtype", "role")
    role = cast(Role, fields.choice("role", ROLES))
    return Parameter(fields.text("name"), _shape(fields), fields.choice("dtype", _DTYPES), role)


def _spec(fields: Fields) -> TensorSpec:
    fields.only("name", "shape", "dtype", optional=("below",))
    below = fields.integer("below", 1, MAX_ELEMENTS) if fields.has("below") else 0
    return TensorSpec(fields.text("name"), _shape(fields, MAX_FED), fields.choice("dtype", _DTYPES), below)


def _shape(fields: Fields, most: int = MAX_ELEMENTS) -> tuple[int, ...]:
    shape = fields.integers("shape", 0, MAX_ELEMENTS, most=MAX_RANK)
    elements = 1
    for n in shape:
        elements *= n
    if elements > most:
        raise BundleTooLarge(f"a tensor of shape {shape} has {elements} elements, allowed {most}")
    return shape


def _artifact(fields: Fields) -> Artifact:
    fields.only("target", "kind", "path", "sha256", "size", "inputs", "outputs")
    target, kind = fields.choice("target", EXTENSIONS), fields.choice("kind", KINDS)
    return Artifact(target, kind, _entry(fields), fields.texts("inputs"), fields.texts("outputs"))


def _files(fields: Fields) -> dict[str, Entry]:
    entries = {
        name: _entry(fields.object(name).only("path", "sha256", "size")) for name in FILES if fields.has(name)
    }
    for name, entry in entries.items():
        if entry.path != FILES[name]:
            raise ManifestError(f"manifest.files.{name}.path is {entry.path!r}, expected {FILES[name]!r}")
    return entries


def _entry(fields: Fields) -> Entry:
    path, sha256 = check_path(fields.text("path")), fields.text("sha256")
    if not _SHA256.fullmatch(sha256):
        raise ManifestError(f"sha256 of {path!r} is {sha256!r}, expected 64 lowercase hexadecimal digits")
    size = fields.integer("size", 0, MAX_MODEL_VERSION)
    if size > MAX_BUNDLE_BYTES:
        raise BundleTooLarge(f"entry {path!r} declares {size} bytes, allowed {MAX_BUNDLE_BYTES}")
    return Entry(path, sha256, size)


def _check_unique(what: str, names: list[str]) -> None:
    if twice := repeated(names):
        raise ManifestError(f"{what} names appear more than once: {_first(twice)}")


def _first(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{[name[:80] for name in names[:5]]}{more}"


def _lines(document: dict[str, Any]) -> bytes:
    """Canonical JSON for the eye: a line per field, and within tables and objects a line per row."""
    fields = []
    for name, value in sorted(document.items()):
        if isinstance(value, dict) and value:
            rows = [canonical(key) + b": " + canonical(item) for key, item in sorted(value.items())]
            text = b"{\n  " + b",\n  ".join(rows) + b"\n }"
        elif isinstance(value, list) and value:
            text = b"[\n  " + b",\n  ".join(map(canonical, value)) + b"\n ]"
        else:
            text = canonical(value)
        fields.append(canonical(name) + b": " + text)
    return b"{\n " + b",\n ".join(fields) + b"\n}\n"
