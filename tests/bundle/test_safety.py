# SPDX-License-Identifier: Apache-2.0
"""Files that would make an engine read others, however well they hide it: no such bundle opens."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle
from edgefl.bundle.safety import check_artifact, messages
from edgefl.errors import BundleUnsafe
from edgefl.graph.protobuf import put_bytes, put_integer
from tests.fixtures import minimal
from tests.fixtures.small import small

pytestmark = pytest.mark.device

FIXTURES = Path(__file__).parents[1] / "fixtures"
ONNX_KINDS = ("step", "step-channels-last", "features", "features-int8", "infer", "infer-int8")
TRAINING_KINDS = ("training", "eval", "optimizer-sgd", "optimizer-adamw")


def elsewhere(secret: str) -> bytes:
    """A TensorProto whose 16 bytes are in another file."""
    location = put_bytes(1, "location") + put_bytes(2, secret)
    return (
        put_integer(1, 4)
        + put_integer(2, 1)
        + put_bytes(8, "w")
        + put_bytes(13, location)
        + put_integer(14, 1)
    )


def node(*attribute: bytes, operator: str = "Constant", domain: str = "") -> bytes:
    return put_bytes(4, operator) + put_bytes(7, domain) + b"".join(put_bytes(5, a) for a in attribute)


SECRET = elsewhere("/etc/passwd")
SPARSE = put_bytes(1, SECRET)
SUBGRAPH = put_bytes(5, SECRET)
PLACES: dict[str, Callable[[], bytes]] = {
    "initializer": lambda: minimal.onnx("g", put_bytes(5, SECRET)),
    "only a location": lambda: minimal.onnx("g", put_bytes(5, put_integer(14, 1))),
    "only an entry": lambda: minimal.onnx("g", put_bytes(5, put_bytes(13, b""))),
    "sparse values": lambda: minimal.onnx("g", put_bytes(15, put_bytes(1, SECRET))),
    "sparse indices": lambda: minimal.onnx("g", put_bytes(15, put_bytes(2, SECRET))),
    "attribute": lambda: minimal.onnx("g", put_bytes(1, node(put_bytes(5, SECRET)))),
    "attribute of several": lambda: minimal.onnx("g", put_bytes(1, node(put_bytes(10, SECRET)))),
    "sparse attribute": lambda: minimal.onnx("g", put_bytes(1, node(put_bytes(22, SPARSE)))),
    "sparse attributes": lambda: minimal.onnx("g", put_bytes(1, node(put_bytes(23, SPARSE)))),
    "subgraph": lambda: minimal.onnx("g", put_bytes(1, node(put_bytes(6, SUBGRAPH)))),
    "subgraphs": lambda: minimal.onnx("g", put_bytes(1, node(put_bytes(11, SUBGRAPH)))),
    "subgraph of a subgraph": lambda: minimal.onnx(
        "g", put_bytes(1, node(put_bytes(6, put_bytes(1, node(put_bytes(6, SUBGRAPH))))))
    ),
    "training": lambda: minimal.onnx("g") + put_bytes(20, put_bytes(1, SUBGRAPH)),
    "training step": lambda: minimal.onnx("g") + put_bytes(20, put_bytes(2, SUBGRAPH)),
    "function": lambda: minimal.onnx("g") + put_bytes(25, put_bytes(7, node(put_bytes(5, SECRET)))),
    "default of a function": lambda: minimal.onnx("g") + put_bytes(25, put_bytes(11, put_bytes(5, SECRET))),
}


def opened(target: str, kind: str, data: bytes) -> Bundle:
    return Bundle.open(small(artifacts=[ArtifactData(target, kind, data)]).to_bytes())


@pytest.mark.parametrize("place", PLACES)
def test_tensors_in_other_files(place: str) -> None:
    with pytest.raises(BundleUnsafe, match=r"artifacts/onnx/step\.onnx.*another file"):
        opened("onnx", "step", PLACES[place]())


@pytest.mark.parametrize(
    "target, kind", [*(("onnx", k) for k in ONNX_KINDS), *(("ort-training", k) for k in TRAINING_KINDS)]
)
def test_every_kind_of_onnx_file_is_looked_at(target: str, kind: str) -> None:
    with pytest.raises(BundleUnsafe, match="another file"):
        opened(target, kind, PLACES["initializer"]())


def test_the_engine_would_have_read_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the check is for: onnxruntime takes bytes that name a file beside it, and reads that file."""
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(np.arange(4, dtype="<f4").tobytes())
    dims = put_bytes(1, put_integer(1, 4))
    output = put_bytes(1, "w") + put_bytes(2, put_bytes(1, put_integer(1, 1) + put_bytes(2, dims)))
    graph = minimal.onnx("g", put_bytes(5, elsewhere("secret")), put_bytes(12, output))
    data = put_integer(1, 8) + graph + put_bytes(8, put_integer(2, 18))

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    assert session.run(None, {})[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(BundleUnsafe):
        opened("onnx", "step", data)


@pytest.mark.parametrize(
    "domain, operator, named",
    [("evil.org", "Add", "evil.org"), ("com.microsoft", "EPContext", "EPContext"),
     ("com.microsoft", "PythonOp", "PythonOp")],
)  # fmt: skip
def test_operators_of_strangers_and_those_that_reach_out(domain: str, operator: str, named: str) -> None:
    data = minimal.onnx("g", put_bytes(1, node(operator=operator, domain=domain)))

    with pytest.raises(BundleUnsafe, match=named):
        opened("onnx", "step", data)


def test_what_does_not_open_cannot_be_made() -> None:
    with pytest.raises(BundleUnsafe, match="another file"):
        small().with_artifacts([ArtifactData("onnx", "step", PLACES["initializer"]())])


def test_files_that_are_two_formats_at_once() -> None:
    """An engine that tries formats in turn may take the one that was not looked at."""
    swallowed = put_bytes(2, b"\0\0ORTM" + bytes(26))
    graph_def = put_bytes(1, b"") + minimal.onnx("g")

    with pytest.raises(BundleUnsafe, match="marked as ORTM"):
        opened("onnx", "step", swallowed + minimal.onnx("g"))
    with pytest.raises(BundleUnsafe, match="IR version is no number"):
        opened("onnx", "step", graph_def)


def test_a_graph_given_twice_is_looked_at_twice() -> None:
    """Readers of protobuf merge what is given twice."""
    with pytest.raises(BundleUnsafe, match="another file"):
        opened("onnx", "step", minimal.onnx("g") + PLACES["initializer"]())


def test_fields_without_end_are_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte of a file costs a field at most, and a field some memory in readers that keep them."""
    monkeypatch.setattr(messages, "MAX_FIELDS", 1000)
    many = put_bytes(5, b"\x20\0" * 2000)

    with pytest.raises(BundleUnsafe, match="more than 1000 fields"):
        opened("onnx", "step", minimal.onnx("g", many))


def test_graphs_in_graphs_have_an_end() -> None:
    graph = put_bytes(2, "innermost")
    for _ in range(100):
        graph = put_bytes(1, node(put_bytes(6, graph)))

    with pytest.raises(BundleUnsafe, match="nested deeper than 100"):
        opened("onnx", "step", put_bytes(7, graph))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model",
        b"<?xml version='1.0'?><net/>",
        b"\x08\x00\x00\x00ORTM" + bytes(16),
        minimal.tflite(),
    ],
)
@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_what_is_not_of_the_format_is_no_artifact(target: str, data: bytes) -> None:
    if target == "tflite" and data == minimal.tflite():
        opened(target, "step", data)
        return
    with pytest.raises(BundleUnsafe):
        opened(target, "step", data)


# -- TFLite


def flat(*fields: bytes | None) -> bytes:
    """A TFLite file whose model has fields of one offset each; what they point to follows, in order."""
    count = len(fields)
    vtable = struct.pack("<HH", 4 + 2 * count, 4 + 4 * count)
    vtable += b"".join(struct.pack("<H", 4 + 4 * i if f is not None else 0) for i, f in enumerate(fields))
    vtable += bytes(-len(vtable) % 4)
    table = 8 + len(vtable)
    head, tail = struct.pack("<I4s", table, b"TFL3") + vtable + struct.pack("<i", len(vtable)), b""
    place = table + 4
    for i, data in enumerate(fields):
        target = place + 4 * count + len(tail)
        head += struct.pack("<I", target - (place + 4 * i))
        tail += data or b""
    return head + tail


def one_table(fields: str, *values: int) -> bytes:
    """A vector of one table with inline numbers of the given struct letters, `x` for an absent field."""
    offsets, body = [], b""
    for letter, value in zip(fields, values, strict=True):
        offsets.append(0 if letter == "x" else 4 + len(body))
        body += b"" if letter == "x" else struct.pack("<" + letter, value)
    vtable = struct.pack(f"<HH{len(offsets)}H", 4 + 2 * len(offsets), 4 + len(body), *offsets)
    return struct.pack("<II", 1, 4 + len(vtable)) + vtable + struct.pack("<i", len(vtable)) + body


CUSTOM = flat(None, one_table("bxxi", 32, 0, 0, 32))
OLD_CUSTOM = flat(None, one_table("b", 32))
OWN = flat(None, one_table("bxxi", 18, 0, 0, 18))
BEYOND = flat(None, None, None, None, one_table("xQQ", 0, 1 << 40, 16))
EXTERNAL = flat(*[None] * 9, one_table("I", 1))


@pytest.mark.parametrize(
    "data, said",
    [(CUSTOM, "custom operator"), (OLD_CUSTOM, "custom operator"), (BEYOND, "buffer 0 ends"),
     (EXTERNAL, "other files"), (OWN[:-6], "points to byte"),
     (struct.pack("<I4s", 1 << 30, b"TFL3"), "points to byte")],
)  # fmt: skip
def test_tflite_files_are_whole_and_have_no_custom_operators(data: bytes, said: str) -> None:
    with pytest.raises(BundleUnsafe, match=said):
        opened("tflite", "step", data)


def test_tflite_operators_of_its_own_are_allowed() -> None:
    opened("tflite", "step", OWN)


# -- Core ML


def blob(name: str) -> bytes:
    """An ML Program's fields whose only operation has a constant in a file."""
    value = put_bytes(5, put_bytes(1, name) + put_integer(2, 64))
    operation = put_bytes(1, "const") + put_bytes(5, put_bytes(1, "val") + put_bytes(2, value))
    block = put_bytes(3, operation)
    function = put_bytes(3, put_bytes(1, "CoreML5") + put_bytes(2, block))
    return put_bytes(2, put_bytes(1, "main") + put_bytes(2, function))


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "@model_path/../../secret", "@model_path/weights/other.bin", "weights/weight.bin", ""],
)
def test_blobs_outside_the_package(name: str) -> None:
    with pytest.raises(BundleUnsafe, match="not inside the package"):
        opened("coreml", "step", minimal.mlpackage(blob(name), weight=b"blobs"))


def test_blobs_inside_the_package() -> None:
    opened("coreml", "step", minimal.mlpackage(blob("@model_path/weights/weight.bin"), weight=b"blobs"))


def test_a_package_whose_manifest_names_another_model() -> None:
    with pytest.raises(BundleUnsafe, match=r"names '\.\./\.\./elsewhere'"):
        opened("coreml", "step", minimal.mlpackage(named="../../elsewhere"))


@pytest.mark.parametrize("number", [202, 555, 556, 3000])
def test_pipelines_linked_and_custom_models(number: int) -> None:
    """Of several types in one file the last one counts, so there may be one only."""
    with pytest.raises(BundleUnsafe, match=rf"types \[502, {number}\]"):
        opened("coreml", "step", minimal.mlpackage(more=put_bytes(number, b"")))
    with pytest.raises(BundleUnsafe, match=rf"types \[500, {number}\]"):
        opened("coreml", "updatable", put_bytes(500, b"") + put_bytes(number, b""))


CUSTOM_LAYER = put_bytes(1, put_bytes(1, "odd") + put_bytes(500, b""))


@pytest.mark.parametrize(
    "layers",
    [CUSTOM_LAYER, put_bytes(1, put_bytes(605, put_bytes(2, CUSTOM_LAYER))),
     put_bytes(1, put_bytes(615, put_bytes(4, CUSTOM_LAYER)))],
    ids=["plain", "in a branch", "in a loop"],
)  # fmt: skip
def test_custom_layers(layers: bytes) -> None:
    with pytest.raises(BundleUnsafe, match="custom layer"):
        opened("coreml", "updatable", put_bytes(500, layers))


def test_custom_operations() -> None:
    block = put_bytes(3, put_bytes(1, "custom_layer"))
    function = put_bytes(3, put_bytes(1, "CoreML5") + put_bytes(2, block))

    with pytest.raises(BundleUnsafe, match="custom operation"):
        opened("coreml", "step", minimal.mlpackage(put_bytes(2, put_bytes(2, function))))


def test_real_artifacts_pass() -> None:
    for name in ("mlp", "head", "detour"):
        bundle = Bundle.open(FIXTURES / f"{name}.edgefl")
        assert bundle.manifest.artifacts
        for artifact in bundle.manifest.artifacts:
            check_artifact(
                artifact.target, artifact.kind, bundle.artifact(artifact.target, artifact.kind), artifact.path
            )
