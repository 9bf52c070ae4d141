# SPDX-License-Identifier: Apache-2.0
"""Saved files as a whole: float16, compressed weights, states, and files that are wrong."""

from __future__ import annotations

import ast
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.coreml_evaluator.blobs import unpack
from tests.coreml_evaluator.builders import coremltools, save_program
from tests.coreml_evaluator.errors import MalformedFile, Refused, TooLarge, Unsupported, WrongFeeds
from tests.coreml_evaluator.model import load
from tests.coreml_evaluator.protos import messages

pytest.importorskip("coremltools")

X = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)


def product(mb: Any, x: Any) -> Any:
    return mb.relu(x=mb.matmul(x=x, y=W), name="y")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_program(tmp_path_factory.mktemp("original"), {"x": X}, product)


@pytest.fixture
def package(original: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(original, tmp_path / "copy.mlpackage"))


def spec_of(package: Path) -> Path:
    return package / "Data" / "com.apple.CoreML" / "model.mlmodel"


def weights_of(package: Path) -> Path:
    return spec_of(package).parent / "weights" / "weight.bin"


def edit(package: Path, change: Callable[[Any], None]) -> None:
    spec = messages("Model_pb2").Model()
    spec.ParseFromString(spec_of(package).read_bytes())
    change(spec)
    spec_of(package).write_bytes(spec.SerializeToString())


def block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def test_the_evaluator_shares_nothing_with_the_project() -> None:
    found = {
        name
        for path in Path(__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }

    assert [name for name in found if name.split(".")[0] == "edgefl"] == []


def test_weights_come_from_the_blob_file(original: Path) -> None:
    np.testing.assert_allclose(load(original)({"x": X})["y"], np.maximum(X @ W, 0), rtol=1e-5, atol=1e-5)


def test_float16_rounds_every_tensor(tmp_path: Path) -> None:
    model = load(save_program(tmp_path, {"x": X}, product, half=True))

    got = model({"x": X})["y"]

    assert "cast" in model.operations()
    assert np.array_equal(got, got.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(got, np.maximum(X @ W, 0), rtol=1e-2, atol=2e-2)


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
@pytest.mark.parametrize("form", ["linear", "palette"])
def test_compressed_weights_are_close(tmp_path: Path, target: str, form: str) -> None:
    import warnings

    ct = coremltools()
    import coremltools.optimize.coreml as cto

    path = save_program(
        tmp_path, {"x": X}, lambda mb, x: mb.linear(x=x, weight=W.T.copy(), name="y"), target=target
    )
    config: Any = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=1)
    change: Any = cto.linear_quantize_weights
    if form == "palette":
        config, change = (
            cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=1),
            cto.palettize_weights,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = change(ct.models.MLModel(str(path), skip_model_load=True), cto.OptimizationConfig(config))
        small.save(str(tmp_path / "small.mlpackage"))

    model = load(tmp_path / "small.mlpackage")

    assert any(kind.startswith("constexpr_") for kind in model.operations())
    error = model({"x": X})["y"] - X @ W
    assert np.linalg.norm(error) < (0.02 if form == "linear" else 0.2) * np.linalg.norm(X @ W)


@pytest.mark.parametrize(
    ("bits", "values"), [(1, [1, 0, 1, 1, 0, 0, 0, 0, 1]), (3, [7, 1, 5, 2]), (6, [63, 1, 32, 9])]
)
def test_packed_values_start_at_the_lowest_bit(bits: int, values: list[int]) -> None:
    whole = sum(v << (i * bits) for i, v in enumerate(values))
    data = np.frombuffer(whole.to_bytes(8, "little"), np.uint8)

    assert unpack(data, bits, len(values)).tolist() == values


def test_packed_signed_values() -> None:
    assert unpack(np.uint8([0xF8]), 4, 2, signed=True).tolist() == [-8, -1]


def test_state_is_kept_between_calls(tmp_path: Path) -> None:
    import warnings

    ct = coremltools()
    from coremltools.converters.mil import Builder as mb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")

        @mb.program(  # type: ignore[misc]
            input_specs=[mb.TensorSpec((3,), dtype=ct.converters.mil.mil.types.fp16),
                         mb.StateTensorSpec((3,), dtype=ct.converters.mil.mil.types.fp16)],
            opset_version=ct.target.iOS18,
        )  # fmt: skip
        def program(x: Any, total: Any) -> Any:
            more = mb.add(x=mb.read_state(input=total), y=x)
            return mb.identity(x=mb.coreml_update_state(state=total, value=more), name="y")

        model = ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True)
        model.save(str(tmp_path / "state.mlpackage"))
    counter = load(tmp_path / "state.mlpackage")
    states = counter.new_states()

    step = {"x": np.ones(counter.inputs["x"][0], counter.inputs["x"][1])}

    counter(step, states)
    assert counter(step, states)["y"].tolist() == [2, 2, 2]
    assert counter(step)["y"].tolist() == [1, 1, 1]


def test_inputs_must_be_the_described(original: Path) -> None:
    with pytest.raises(WrongFeeds, match="inputs are"):
        load(original)({})
    with pytest.raises(WrongFeeds, match="asked float32"):
        load(original)({"x": X.astype(np.float64)})


def test_unknown_operation_is_refused_by_name(package: Path) -> None:
    def change(spec: Any) -> None:
        for operation in block(spec).operations:
            operation.type = "relu_of_tomorrow" if operation.type == "relu" else operation.type

    edit(package, change)

    with pytest.raises(Unsupported, match="relu_of_tomorrow"):
        load(package)({"x": X})


def test_declared_type_is_held_against_the_result(package: Path) -> None:
    def change(spec: Any) -> None:
        for operation in block(spec).operations:
            if operation.type == "relu":
                operation.outputs[0].type.tensorType.dimensions[1].constant.size = 63

    edit(package, change)

    with pytest.raises(MalformedFile, match="is declared"):
        load(package)({"x": X})


def test_declared_sizes_are_bounded_before_anything_is_made(package: Path) -> None:
    def change(spec: Any) -> None:
        for operation in block(spec).operations:
            if operation.type == "matmul":
                for dimension in operation.outputs[0].type.tensorType.dimensions:
                    dimension.constant.size = 1 << 40

    edit(package, change)

    with pytest.raises(TooLarge, match="elements"):
        load(package)({"x": X})


def test_what_must_be_constant_is_checked(package: Path) -> None:
    def change(spec: Any) -> None:
        for operation in block(spec).operations:
            if operation.type == "matmul":
                operation.type = "linear"
                operation.inputs["weight"].CopyFrom(operation.inputs["x"])
                del operation.inputs["y"]
                for key in ("transpose_x", "transpose_y"):
                    del operation.inputs[key]

    edit(package, change)

    with pytest.raises(Refused, match="input weight must be constant"):
        load(package)({"x": X})


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, struct.pack("<I", 1), "version 1"),
        (64, struct.pack("<I", 0xDEADBEE0), "sentinel"),
        (68, struct.pack("<I", 99), "data type 99"),
        (72, struct.pack("<Q", 1 << 50), "of .* bytes"),
        (72, struct.pack("<Q", 64), "not 4096 values"),
        (80, struct.pack("<Q", 1 << 50), "of .* bytes"),
        (80, struct.pack("<Q", 100), "data 100"),
    ],
)
def test_damaged_weight_files_are_refused(package: Path, place: int, value: bytes, message: str) -> None:
    data = bytearray(weights_of(package).read_bytes())
    data[place : place + len(value)] = value
    weights_of(package).write_bytes(bytes(data))

    with pytest.raises((MalformedFile, Unsupported), match=message):
        load(package)({"x": X})


@pytest.mark.parametrize(
    "name", ["@model_path/weights/../model.mlmodel", "/etc/passwd", "@model_path/weights/none.bin"]
)
def test_weights_outside_the_package_are_refused(package: Path, name: str) -> None:
    def change(spec: Any) -> None:
        for operation in block(spec).operations:
            if operation.attributes["val"].WhichOneof("value") == "blobFileValue":
                operation.attributes["val"].blobFileValue.fileName = name

    edit(package, change)

    with pytest.raises(MalformedFile, match="weights in"):
        load(package)({"x": X})


@pytest.mark.parametrize("path", ["../../outside", "/etc/hostname", "com.apple.CoreML/none"])
def test_manifest_cannot_name_files_elsewhere(package: Path, path: str) -> None:
    manifest = package / "Manifest.json"
    content = json.loads(manifest.read_text())
    content["itemInfoEntries"][content["rootModelIdentifier"]]["path"] = path
    manifest.write_text(json.dumps(content))

    with pytest.raises(MalformedFile, match="not in the package"):
        load(package)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100])
def test_files_that_are_no_models_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.mlmodel"
    path.write_bytes(content)

    with pytest.raises((MalformedFile, Unsupported)):
        load(path)
