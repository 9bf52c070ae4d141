# SPDX-License-Identifier: Apache-2.0
"""Bundles made to do harm, or damaged on the way: each is refused by its own name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.bundle import Bundle
from edgefl.bundle.archive import MAX_BUNDLE_BYTES, MAX_ENTRIES, pack
from edgefl.errors import (
    BundleEntry,
    BundleError,
    BundleHash,
    BundlePath,
    BundleTooLarge,
    BundleTruncated,
    BundleVersion,
    EdgeflError,
    ManifestError,
    TensorFileError,
)
from edgefl.strictjson import repeated
from edgefl.tensorfile import write_tensors
from tests.fixtures import minimal
from tests.fixtures.small import small

pytestmark = pytest.mark.device

VALID = small().to_bytes()


def entries() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(VALID)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return memory.getvalue()


def forged(change) -> bytes:
    """The valid bundle with its manifest changed by a function."""
    files = entries()
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    return pack({**files, "manifest.json": json.dumps(manifest).encode()})


def relisted(path: str, data: bytes) -> bytes:
    """The valid bundle with an entry's bytes replaced, and the manifest agreeing with them."""
    files = {**entries(), path: data}
    manifest = json.loads(files["manifest.json"])
    for entry in (*manifest["files"].values(), *manifest["artifacts"]):
        if entry["path"] == path:
            entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return pack({**files, "manifest.json": json.dumps(manifest).encode()})


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"hello" * 100, VALID[:-1], VALID[1:], VALID + b"\0", VALID[: len(VALID) // 2]]
)
def test_cut_short_or_no_bundle_at_all(data: bytes) -> None:
    with pytest.raises(BundleTruncated):
        Bundle.open(data)


@given(st.integers(0, len(VALID) - 1))
def test_every_prefix_is_refused(length: int) -> None:
    with pytest.raises(BundleError):
        Bundle.open(VALID[:length])


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_a_changed_byte_never_changes_the_content(position: int, value: int) -> None:
    data = bytearray(VALID)
    data[position] = value
    try:
        opened = Bundle.open(bytes(data))
    except BundleError:
        return
    assert opened.to_bytes() == VALID


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/../../b", "C:\\evil", "..\\evil", "artifacts//x"]
)
def test_path_traversal(name: str) -> None:
    with pytest.raises(BundlePath, match="refused"):
        Bundle.open(zipped([*entries().items(), (name, b"boo")]))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "artifacts/../../x"])
def test_path_traversal_in_the_manifest(name: str) -> None:
    with pytest.raises(BundlePath, match="refused"):
        Bundle.open(forged(lambda m: m["artifacts"][0].update(path=name)))


def test_compressed_entries() -> None:
    with pytest.raises(BundleEntry, match="compressed"):
        Bundle.open(zipped(list(entries().items()), zipfile.ZIP_DEFLATED))


def test_unknown_entries() -> None:
    with pytest.raises(BundleEntry, match=r"unlisted \['extra.bin'\]"):
        Bundle.open(pack({**entries(), "extra.bin": b""}))


def test_missing_entries() -> None:
    files = entries()
    del files["artifacts/onnx/step.onnx"]
    with pytest.raises(BundleEntry, match=r"missing entries \['artifacts/onnx/step.onnx'\]"):
        Bundle.open(pack(files))


def test_a_missing_manifest() -> None:
    with pytest.raises(BundleEntry, match="has no manifest"):
        Bundle.open(pack({"a": b""}))


def test_doubled_entries() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zipped([*entries().items(), ("manifest.json", b"{}")])
    with pytest.raises(BundleEntry, match="more than once"):
        Bundle.open(data)


def test_a_name_that_differs_between_directory_and_entry() -> None:
    data = VALID.replace(b"artifacts/onnx/step.onnx", b"artifacts/onnx/evil.onnx", 1)
    with pytest.raises(BundleEntry, match="its own header"):
        Bundle.open(data)


def test_changed_bytes_under_an_honest_checksum() -> None:
    with pytest.raises(BundleHash, match="sha256"):
        Bundle.open(pack({**entries(), "artifacts/onnx/step.onnx": minimal.onnx("evil")}))


def test_changed_length() -> None:
    with pytest.raises(BundleHash, match="the manifest says"):
        Bundle.open(pack({**entries(), "artifacts/onnx/step.onnx": b"longer than it was"}))


def test_damaged_bytes() -> None:
    with pytest.raises(BundleHash, match="CRC-32"):
        Bundle.open(VALID.replace(minimal.onnx("infer int8"), minimal.onnx("infer int9")))


def test_overlapping_entries() -> None:
    body = b"x" * 1000
    honest = pack({"a": body})
    directory = honest[honest.index(b"PK\x01\x02") : -22]
    # The second row names another file in the same place, as a ZIP bomb does.
    many = directory + directory[:-1] + b"b"
    end = bytearray(honest[-22:])
    end[8:12] = (2).to_bytes(2, "little") * 2
    end[12:16] = len(many).to_bytes(4, "little")
    with pytest.raises(BundleEntry, match=r"overlap"):
        Bundle.open(honest[: honest.index(b"PK\x01\x02")] + many + bytes(end))


def test_too_many_entries() -> None:
    with pytest.raises(BundleTooLarge, match="entries"):
        Bundle.open(zipped([(f"f{i}", b"") for i in range(MAX_ENTRIES + 1)]))


def test_a_huge_file_is_refused_unread(tmp_path) -> None:
    path = tmp_path / "huge.edgefl"
    path.touch()
    os.truncate(path, MAX_BUNDLE_BYTES + 1)
    tracemalloc.start()
    with pytest.raises(BundleTooLarge):
        Bundle.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("version", "error"), [(2, BundleVersion), (0, BundleVersion), ("1", ManifestError), (1.0, ManifestError)]
)
def test_other_format_versions(version: object, error: type[EdgeflError]) -> None:
    with pytest.raises(error):
        Bundle.open(forged(lambda m: m.update(version=version)))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"]["golden"].update(size=1 << 40),
        lambda m: m["parameters"][2].update(shape=[1 << 20, 1 << 20]),
        lambda m: m["inputs"][0].update(shape=[4, (1 << 31) - 1, 2]),
        lambda m: m["inputs"][0].update(shape=[4, (1 << 26) + 1]),
    ],
)
def test_oversized_declarations(change) -> None:
    with pytest.raises(BundleTooLarge, match="allowed"):
        Bundle.open(forged(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("loss"), "missing fields \\['loss'\\]"),
        (lambda m: m.update(surprise=1), "unknown fields \\['surprise'\\]"),
        (lambda m: m.update(format="zip"), "allowed edgefl-bundle"),
        (lambda m: m.update(batch_size=True), "expected an integer"),
        (lambda m: m.update(batch_size="4"), "expected an integer"),
        (lambda m: m.update(artifacts={}), "expected a list"),
        (lambda m: m.update(files=[]), "expected an object"),
        (lambda m: m.update(defaults=None), "absent or null"),
        (lambda m: m["parameters"][0].update(role="owner"), "allowed shared, personal"),
        (lambda m: m["parameters"][0].update(dtype="object"), "allowed float64"),
        (lambda m: m["parameters"][0].update(shape=[2, -3]), "allowed 0 to"),
        (lambda m: m["parameters"].append(m["parameters"][0]), "more than once"),
        (lambda m: m["artifacts"].append(m["artifacts"][0]), "more than once"),
        (lambda m: m["artifacts"][0].update(inputs={"x": 1}), "expected a string"),
        (lambda m: m["artifacts"][0].update(sha256="00"), "64 lowercase"),
        (lambda m: m["files"]["golden"].update(path="other"), "expected 'golden.safetensors'"),
        (lambda m: m["parameters"][0].update(shape=[3, 2]), "expected \\(3, 2\\)"),
    ],
)
def test_manifests_that_are_not_the_format(change, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Bundle.open(forged(change))


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":1,"a":2}', b'{"a":NaN}', b"1" * 5000]
)
def test_manifests_that_are_no_json_object(text: bytes) -> None:
    with pytest.raises(ManifestError):
        Bundle.open(pack({**entries(), "manifest.json": text}))


def test_a_huge_manifest() -> None:
    with pytest.raises(BundleTooLarge, match="9437184 bytes"):
        Bundle.open(pack({**entries(), "manifest.json": b" " * (9 << 20)}))


def test_a_tensor_header_that_declares_the_moon() -> None:
    header = b'{"w":{"dtype":"F32","shape":[2000000000,2000000000],"data_offsets":[0,4]}}'
    data = len(header).to_bytes(8, "little") + header + b"1234"
    with pytest.raises(TensorFileError, match="takes"):
        Bundle.open(relisted("parameters.safetensors", data))


def test_parameters_of_another_model() -> None:
    with pytest.raises(ManifestError, match="missing"):
        Bundle.open(relisted("parameters.safetensors", write_tensors({"w": np.zeros((2, 3), np.float32)})))


@pytest.mark.parametrize("count", [3_000, 30_000])
def test_names_given_twice_are_counted_once(count: int) -> None:
    """Whoever sends many gets one answer for as many looks at a name as there are names."""

    class Counted(str):
        looks = 0

        def __eq__(self, other: object) -> bool:
            Counted.looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    names = [Counted(f"key {i}") for i in range(count)] * 2

    assert len(repeated(names)) == count
    assert Counted.looks < 60 * count  # counting looks once at each, sorting some log2(count) times


def test_many_keys_given_twice_are_refused_with_the_first() -> None:
    keys = ",".join(f'"k{i}":{i}' for i in range(20_000))

    with pytest.raises(ManifestError, match="'k0' appears more than once"):
        Bundle.open(pack({**entries(), "manifest.json": f"{{{keys},{keys}}}".encode()}))


def test_many_parameters_of_one_name_are_refused_in_a_short_message() -> None:
    with pytest.raises(ManifestError, match="more than once") as refused:
        Bundle.open(
            forged(
                lambda m: m.update(
                    parameters=[m["parameters"][0] | {"name": f"p{i % 300}"} for i in range(900)]
                )
            )
        )

    assert len(str(refused.value)) < 300
