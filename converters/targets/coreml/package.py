# SPDX-License-Identifier: Apache-2.0
"""ML Programs as packages, and packages as bytes.

A package is a folder. A bundle holds it as a ZIP of stored entries, sorted and dated 1980-01-01, whose names
begin with the package's own; unzipping it gives the folder Xcode takes. What coremltools draws at random or
notes about itself is replaced, so that equal programs give equal bytes.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgefl.bundle.archive import pack, unpack_package
from edgefl.errors import ConversionError

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://apple.com/coreml/mlpackage")
_MANIFEST = "Manifest.json"
_MODEL = "Data/com.apple.CoreML/model.mlmodel"


def pack_package(folder: Path, name: str, description: str) -> bytes:
    """The bytes of a saved package, under the name `<name>.mlpackage`."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    files[_MANIFEST] = _manifest(files)
    files[_MODEL] = _model(files[_MODEL], description)
    return pack({f"{name}.mlpackage/{path}": data for path, data in files.items()})


def _manifest(files: Mapping[str, bytes]) -> bytes:
    """The manifest with identifiers made from what they identify; an empty folder of weights is left out."""
    manifest = json.loads(files[_MANIFEST])
    entries = {
        old: entry
        for old, entry in manifest["itemInfoEntries"].items()
        if any(f"{path}/".startswith(f"Data/{entry['path']}/") for path in files)
    }
    names = {old: str(uuid.uuid5(_NAMESPACE, entry["path"])).upper() for old, entry in entries.items()}
    manifest["itemInfoEntries"] = {names[old]: entry for old, entry in entries.items()}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    return json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"


def _model(data: bytes, description: str) -> bytes:
    """The specification with its maps sorted and nothing in it about the machine that made it."""
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model()
    spec.ParseFromString(data)
    return serialized(spec, description)


def serialized(spec: Any, description: str) -> bytes:
    """A specification's bytes, equal for equal specifications."""
    spec.description.metadata.Clear()
    spec.description.metadata.shortDescription = description
    if spec.WhichOneof("Type") == "mlProgram":
        spec.mlProgram.attributes.clear()
    return bytes(spec.SerializeToString(deterministic=True))


@contextlib.contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """coremltools' model of a package's bytes, read from disk and validated; its files live as long.

    Raises:
        ConversionError: coremltools does not accept the package.
    """
    import coremltools as ct

    with tempfile.TemporaryDirectory() as folder:
        path = unpack_package(data, Path(folder))
        try:
            model = ct.models.MLModel(str(path), skip_model_load=True)
        except Exception as exc:  # coremltools' own validation shares no base class
            raise ConversionError(f"coremltools does not accept the package: {exc}") from exc
        yield model


def load(data: bytes) -> Any:
    """The specification of a package's bytes; raises ConversionError where coremltools does not accept it."""
    with opened(data) as model:
        return model.get_spec()


def operations(spec: Any) -> list[tuple[str, tuple[str, ...]]]:
    """Each operation of an ML Program but constants, with the element types of its results."""
    found = []
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            found += [(op.type, _types(op)) for op in block.operations if op.type != "const"]
    return found


def _types(operation: Any) -> tuple[str, ...]:
    from coremltools.proto import MIL_pb2

    names = MIL_pb2.DataType
    return tuple(names.Name(out.type.tensorType.dataType).lower() for out in operation.outputs)


def operators(spec: Any, only: str = "") -> Mapping[str, int]:
    """How often each operator occurs, sorted by name; `only` those that give elements of one type."""
    counts: dict[str, int] = {}
    for name, types in operations(spec):
        if not only or only in types:
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
