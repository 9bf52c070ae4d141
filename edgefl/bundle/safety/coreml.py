# SPDX-License-Identifier: Apache-2.0
"""Core ML packages and models: blobs lie inside the package, no other model is linked, nothing is custom.

Field numbers are those of Apple's Model.proto and MIL.proto, as coremltools ships them.
"""

from __future__ import annotations

from edgefl.bundle.archive import unpack
from edgefl.errors import BundleUnsafe
from edgefl.graph.protobuf import Message
from edgefl.strictjson import Fields, parse

MAX_DEPTH = 32
MODEL = "Data/com.apple.CoreML/model.mlmodel"
MANIFEST = "Manifest.json"
ITEMS = ("com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights")
WEIGHTS = "Data/com.apple.CoreML/"
IN_PACKAGE = "@model_path/"

_PROGRAM, _NETWORKS = 502, (303, 403, 500)
_LINKS = (555, 556, 3000)  # custom, linked and serialized models
_LAYERS, _CUSTOM_LAYER = 1, 500
_KEY_VALUE = 2


def check_package(data: memoryview, where: str) -> None:
    """A zipped `.mlpackage`: raise BundleUnsafe, or another error of the formats it is made of."""
    files = _unpacked(data, where)
    model = _model(files[MODEL], where)
    if _PROGRAM not in model:
        raise BundleUnsafe(f"{where} is no ML Program")
    for function in _values(model.message(_PROGRAM), 2):
        for block in _values(function, 3):
            _block(block, frozenset(files), 0)
        _attributes(function, 4, frozenset(files))
    _attributes(model.message(_PROGRAM), 4, frozenset(files))


def check_model(data: memoryview, where: str) -> None:
    """A classic `.mlmodel`: a neural network and nothing else."""
    model = _model(data, where)
    kinds = [number for number in _NETWORKS if number in model]
    if len(kinds) != 1:
        raise BundleUnsafe(f"{where} is no neural network")
    for layer in model.message(kinds[0]).messages(_LAYERS, "layer"):
        if _CUSTOM_LAYER in layer:
            raise BundleUnsafe(f"{layer.where} is a custom one; allowed are Core ML's own")


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


def _model(data: memoryview, where: str) -> Message:
    model = Message(data, where)
    if any(number in model for number in _LINKS):
        raise BundleUnsafe(f"{where} links to another model or to code; a bundle's files are whole")
    return model


def _block(block: Message, files: frozenset[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BundleUnsafe(f"{block.where} is nested deeper than {MAX_DEPTH} blocks")
    _attributes(block, 4, files)
    for operation in block.messages(3, "operation"):
        for argument in _values(operation, 2):
            for binding in argument.messages(1, "binding"):
                for value in binding.messages(2, "value"):
                    _value(value, files, 0)
        _attributes(operation, 5, files)
        for inner in operation.messages(4, "block"):
            _block(inner, files, depth + 1)


def _attributes(holder: Message, number: int, files: frozenset[str]) -> None:
    for value in _values(holder, number):
        _value(value, files, 0)


def _value(value: Message, files: frozenset[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise BundleUnsafe(f"{value.where} is nested deeper than {MAX_DEPTH} values")
    for blob in value.messages(5, "blob"):
        name = blob.text(1)
        if not name.startswith(IN_PACKAGE) or WEIGHTS + name.removeprefix(IN_PACKAGE) not in files:
            raise BundleUnsafe(f"{blob.where} is in file {name[:80]!r}, which is not inside the package")
    for immediate in value.messages(3, "immediate value"):
        for several in (*immediate.messages(2, "tuple"), *immediate.messages(3, "list")):
            for inner in several.messages(1, "value"):
                _value(inner, files, depth + 1)
        for dictionary in immediate.messages(4, "dictionary"):
            for pair in dictionary.messages(1, "pair"):
                for inner in (*pair.messages(1, "key"), *pair.messages(2, "value")):
                    _value(inner, files, depth + 1)


def _values(holder: Message, number: int) -> list[Message]:
    """The values of a map field."""
    entries = holder.messages(number, "entry")
    return [value for entry in entries for value in entry.messages(_KEY_VALUE, "value")]
