# SPDX-License-Identifier: Apache-2.0
"""Core ML packages and models: blobs lie inside the package, no other model is linked, nothing is custom.

Field numbers are those of Apple's Model.proto, MIL.proto and NeuralNetwork.proto, as coremltools ships them.
"""

from __future__ import annotations

from edgefl.bundle.archive import unpack
from edgefl.bundle.safety.messages import Layout, walk
from edgefl.errors import BundleUnsafe
from edgefl.strictjson import Fields, parse

MODEL = "Data/com.apple.CoreML/model.mlmodel"
MANIFEST = "Manifest.json"
ITEMS = ("com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights")
WEIGHTS = "Data/com.apple.CoreML/"
IN_PACKAGE = "@model_path/"

_FIRST_TYPE = 200
"""From this field of a model on each says what kind of model it is; the last one given counts."""
_PROGRAM, _NETWORK = 502, 500
_CUSTOM_LAYER, _CUSTOM_OPERATION = 500, "custom_layer"

_LAYOUT: Layout = {
    "model": {_PROGRAM: "program", _NETWORK: "network"},
    "network": {1: "layer"},
    "layer": {605: "branch", 615: "loop"},
    "branch": {1: "network", 2: "network"},
    "loop": {3: "network", 4: "network"},
    "program": {2: "function entry", 4: "value entry"},
    "function entry": {2: "function"},
    "function": {3: "block entry", 4: "value entry"},
    "block entry": {2: "block"},
    "block": {3: "operation", 4: "value entry"},
    "operation": {2: "argument entry", 4: "block", 5: "value entry"},
    "argument entry": {2: "argument"},
    "argument": {1: "binding"},
    "binding": {2: "value"},
    "value entry": {2: "value"},
    "value": {3: "immediate value", 5: "blob"},
    "immediate value": {2: "values", 3: "values", 4: "dictionary"},
    "values": {1: "value"},
    "dictionary": {1: "pair"},
    "pair": {1: "value", 2: "value"},
    "blob": {},
}


def check_package(data: memoryview, where: str) -> None:
    """A zipped `.mlpackage`: raise BundleUnsafe, or another error of the formats it is made of."""
    files = _unpacked(data, where)
    _check(files[MODEL], _PROGRAM, frozenset(files), where)


def check_model(data: memoryview, where: str) -> None:
    """A classic `.mlmodel`: a neural network and nothing else."""
    _check(data, _NETWORK, frozenset(), where)


def _unpacked(data: memoryview, where: str) -> dict[str, memoryview]:
    """A package's files by their path inside it: model, weights and a manifest that names no other."""
    archive = unpack(bytes(data))
    roots = {name.partition("/")[0] for name in archive}
    files = {name.partition("/")[2]: content for name, content in archive.items()}
    if len(roots) != 1 or not roots.pop().endswith(".mlpackage") or not {MODEL, MANIFEST} <= set(files):
        raise BundleUnsafe(f"{where} is not one .mlpackage folder with {MANIFEST} and {MODEL}")
    items = Fields(parse(bytes(files[MANIFEST]), BundleUnsafe, MANIFEST), MANIFEST, BundleUnsafe)
    for item in items.mapping("itemInfoEntries").values():
        path = Fields(item, f"{MANIFEST} item", BundleUnsafe).text("path")
        if path not in ITEMS:
            raise BundleUnsafe(f"{where}: {MANIFEST} names {path[:80]!r}, allowed are {', '.join(ITEMS)}")
    return files


def _check(data: memoryview, kind: int, files: frozenset[str], where: str) -> None:
    kinds = []
    for field in walk(data, _LAYOUT, "model", where):
        if field.message == "model" and field.number >= _FIRST_TYPE:
            kinds.append(field.number)
        elif field.message == "layer" and field.number == _CUSTOM_LAYER:
            raise BundleUnsafe(f"{where} has a custom layer; allowed are Core ML's own")
        elif field.message == "operation" and field.number == 1 and field.text() == _CUSTOM_OPERATION:
            raise BundleUnsafe(f"{where} has a custom operation; allowed are Core ML's own")
        elif field.message == "blob" and field.number == 1:
            _check_blob(field.text(), files, where)
    if kinds != [kind]:
        words = {_PROGRAM: "ML Program", _NETWORK: "neural network"}[kind]
        raise BundleUnsafe(f"{where} is a model of types {kinds}; allowed is one {words} ({kind})")


def _check_blob(name: str, files: frozenset[str], where: str) -> None:
    if not name.startswith(IN_PACKAGE) or WEIGHTS + name.removeprefix(IN_PACKAGE) not in files:
        raise BundleUnsafe(f"{where} takes values from file {name[:80]!r}, which is not inside the package")
