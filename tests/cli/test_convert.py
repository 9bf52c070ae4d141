# SPDX-License-Identifier: Apache-2.0
"""From models to bundles: each source once, as a user would have it on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgefl import Bundle
from edgefl.converters.builder import GraphBuilder
from edgefl.converters.losses import LOSSES
from edgefl.graph import TensorType, write_onnx
from tests.cli.commands import Command, Ran, in_own_process, save_examples

MODELS = """
def in_torch():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.Tanh(), torch.nn.Linear(10, 3))


def in_keras():
    import keras

    keras.utils.set_random_seed(0)
    head = keras.layers.Dense(3, name="head")
    conv = keras.layers.Conv1D(8, 3, activation="relu", name="conv")
    return keras.Sequential([keras.Input((20, 4)), conv, keras.layers.GlobalAveragePooling1D(), head])


def idle():
    import torch

    class Idle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.spare = torch.nn.Linear(6, 3), torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.head(x)

    return Idle(), torch.zeros(1, 6)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    (made / "models.py").write_text(MODELS)
    return made


@pytest.fixture(scope="module")
def from_torch(folder: Path) -> Ran:
    """A PyTorch model for one target, and what was printed about it as JSON."""
    shape, target = ("--input-shape", "6"), ("--target", "onnx")
    arguments = ("convert", "models.py:in_torch", *shape, *target, "-o", "torch.edgefl", "--json")
    return in_own_process(arguments, folder)


@pytest.fixture(scope="module")
def from_keras(folder: Path) -> Ran:
    """The head of a Keras model for both targets, and the report printed about it."""
    arguments = ("convert", "models.py:in_keras", "--trainable", "*head*", "-o", "keras.edgefl")
    return in_own_process(arguments, folder)


def onnx_file(path: Path, activation: str) -> Path:
    """6 inputs, 8 units under an activation, 3 scores; batches of 16."""
    random = np.random.default_rng(0)
    b = GraphBuilder()
    x = b.input("x", TensorType(np.dtype(np.float32), (16, 6)))
    weights = [random.normal(size=s).astype(np.float32) for s in ((6, 8), (8, 3))]
    first, second = b.constant(weights[0], hint="first"), b.constant(weights[1], hint="second")
    h = b.add("MatMul", x, first)
    h = b.add(activation, h)
    b.output("scores", b.add("MatMul", h, second))
    path.write_bytes(write_onnx(b.build("model")))
    return path


def test_a_torch_factory_as_json(from_torch: Ran, folder: Path) -> None:
    found = from_torch.json()

    bundle = Bundle.open(folder / "torch.edgefl")
    assert found["bytes"] == (folder / "torch.edgefl").stat().st_size
    assert found["report"] == bundle.manifest.report
    assert found["report"]["trained"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert bundle.manifest.targets == ("onnx",)


def test_what_was_converted_verifies(from_keras: Ran, edgefl: Command, folder: Path) -> None:
    checks = edgefl("verify", folder / "keras.edgefl", "--json").json()["checks"]

    assert {c["verdict"] for c in checks} == {"agrees"}


def test_what_was_converted_learns(from_torch: Ran, call: Command, folder: Path, data: Path) -> None:
    before = call("evaluate", folder / "torch.edgefl", "-d", data, "-b", "onnx", "--json").json()
    call("train", folder / "torch.edgefl", "-d", data, "-b", "onnx", "--epochs", 20, "-o", "trained.edgefl")
    after = call("evaluate", "trained.edgefl", "-d", data, "-b", "onnx", "--json").json()

    assert after["loss"] < before["loss"] / 2
    assert after["accuracy"] > 0.9


def test_a_keras_factory_as_a_report(from_keras: Ran, folder: Path) -> None:
    assert from_keras.status == 0, from_keras.err
    assert from_keras.err == ""
    report, lines = Bundle.open(folder / "keras.edgefl").manifest.report, from_keras.out.splitlines()
    roles = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(("shared", "frozen"))}
    assert roles == {"shared": ["2", "27", "108", "B"], "frozen": ["2", "104", "416", "B"]}
    assert any(line.startswith("Trained ") and "head/kernel" in line for line in lines)
    assert any(line.startswith("Cut ") and report["cut"][0] in line and "32 B" in line for line in lines)
    assert any(line.startswith("Memory ") and "activations" in line for line in lines)
    for graph, operators in report["operators"].items():
        line = next(line for line in lines if line.startswith(graph + " "))
        assert max(operators, key=lambda name: (operators[name], name)) in line
    assert all(len(line) <= 110 for line in lines)


def test_int8_files_for_an_app(from_keras: Ran, edgefl: Command, folder: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(96, 20, 4)).astype(np.float32)
    data = save_examples(tmp_path / "calibration.npz", x=x)
    arguments = (folder / "keras.edgefl", "--calibration", data, "-o", "app", "--json")

    found = edgefl("export", *arguments).json()

    files = {row["target"]: tmp_path / row["file"] for row in found["files"]}
    assert files == {
        "onnx": tmp_path / "app" / "keras-int8.onnx",
        "tflite": tmp_path / "app" / "keras-int8.tflite",
    }
    for row in found["files"]:
        assert files[row["target"]].stat().st_size == row["bytes"]
        assert (row["form"], row["io"], row["warnings"]) == ("int8", "float32", [])
        assert 0 < row["error"] < 0.1 and 0 <= row["accuracy"] <= 1
    assert found["report"]["examples"] == 96


def test_int8_as_a_table(from_torch: Ran, call: Command, folder: Path, data: Path, tmp_path: Path) -> None:
    ran = call("export", folder / "torch.edgefl", "--calibration", data, "--target", "onnx")

    assert ran.status == 0, ran.err
    assert (tmp_path / "torch-int8.onnx").exists() and not (tmp_path / "torch-int8.tflite").exists()
    assert "Against the float model on 96 examples; its accuracy is " in ran.out
    assert "They take one example at a time; tried on onnxruntime " in ran.out


def test_forms_for_firmware(from_torch: Ran, call: Command, folder: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(96, 6)).astype(np.float32)
    np.savez(tmp_path / "unlabelled.npz", x=x)
    arguments = ("export", folder / "torch.edgefl", "-d", "unlabelled.npz", "-t", "onnx", "-o", "app")

    found = call(*arguments, "-f", "float32,float16", "-f", "int8", "--io", "int8", "--json").json()
    said = call(*arguments, "--io", "int8").out

    rows = {row["form"]: row for row in found["files"]}
    assert list(rows) == ["float32", "float16", "int8"]
    assert rows["float32"]["error"] < 1e-6 and rows["float32"]["accuracy"] is None
    given, made = rows["int8"]["tensors"]
    assert given["dtype"] == made["dtype"] == "int8" and given["shape"][0] == rows["int8"]["batch"] == 1
    for tensor in (given, made):
        assert f"{tensor['scale']:.9g}" in said and str(tensor["zero_point"]) in said
    assert (tmp_path / "app" / "torch-int8-io.onnx").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "int8 files need examples: give --data FILE or --calibration FILE, or another --form"),
        (("-f", "int4", "-d"), "form int4: there are float32, float16, int8, weights8"),
        (("-t", "onnx,toaster", "-d"), "target toaster: there are onnx, tflite, coreml"),
        (("-f", "float32", "--io", "int8", "-d"), "io int8 is for int8 files"),
    ],
)
def test_exports_there_are_not(
    from_torch: Ran, call: Command, folder: Path, data: Path, options: tuple[str, ...], reason: str
) -> None:
    given = (*options, data) if options else ()

    refusal = call("export", folder / "torch.edgefl", *given, "--json").refusal()

    assert reason in refusal["message"]


def test_an_onnx_file(call: Command, tmp_path: Path) -> None:
    onnx_file(tmp_path / "model.onnx", "Tanh")

    ran = call("convert", "model.onnx", "--target", "onnx", "--trainable", "*first*", "--name", "mine")

    assert ran.status == 0, ran.err
    manifest = Bundle.open(tmp_path / "model.edgefl").manifest
    assert manifest.name == "mine" and manifest.provenance["model"] == "model.onnx"
    assert [p.role for p in manifest.parameters] == ["shared", "frozen"]
    assert "Cut         none" in ran.out


def test_a_program_of_torch_export(call: Command, tmp_path: Path) -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(4, 6),)), tmp_path / "model.pt2")
    options = ("--target", "onnx", "--batch-size", 4, "--loss", "mean_squared_error", "--personal", "2.*")

    report = call("convert", "model.pt2", "-o", "p.edgefl", *options, "--json").json()["report"]

    manifest = Bundle.open(tmp_path / "p.edgefl").manifest
    assert manifest.loss == "mean_squared_error" and manifest.batch_size == 4
    assert {p.name: p.role for p in manifest.parameters} == {
        "0.weight": "shared",
        "0.bias": "shared",
        "2.weight": "personal",
        "2.bias": "personal",
    }
    assert report["parameters"]["personal"]["elements"] == 9


def test_unknown_loss_lists_all(call: Command, tmp_path: Path) -> None:
    onnx_file(tmp_path / "model.onnx", "Tanh")

    error = call("convert", "model.onnx", "--loss", "huber_loss", "--json").refusal()

    assert error["error"] == "ConversionError"
    assert all(name in error["message"] for name in ("'huber_loss'", *LOSSES))


def test_unknown_pattern_names_what_is_near(call: Command, tmp_path: Path) -> None:
    onnx_file(tmp_path / "model.onnx", "Tanh")

    error = call("convert", "model.onnx", "--trainable", "t1_frist", "--json").refusal()

    assert error["error"] == "SelectionError"
    assert "near it: t1_first" in error["message"]


def test_an_operator_without_gradient_names_node_and_parameters(call: Command, tmp_path: Path) -> None:
    onnx_file(tmp_path / "model.onnx", "Hardmax")

    error = call("convert", "model.onnx", "--target", "onnx", "--json").refusal()

    assert error["error"] == "NotDifferentiable"
    assert all(word in error["message"] for word in ("Hardmax", "first"))
    assert not (tmp_path / "model.edgefl").exists()


def test_an_operator_after_the_frozen_part_needs_no_gradient(call: Command, tmp_path: Path) -> None:
    onnx_file(tmp_path / "model.onnx", "Hardmax")

    ran = call("convert", "model.onnx", "--target", "onnx", "--trainable", "*second*")

    assert ran.status == 0, ran.err
    assert "runs once per example" in ran.out


def test_a_file_that_is_no_model(call: Command, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")

    assert call("convert", "model.onnx", "--json").refusal()["error"] == "SourceError"


def test_unknown_target(call: Command, tmp_path: Path) -> None:
    onnx_file(tmp_path / "model.onnx", "Tanh")

    error = call("convert", "model.onnx", "--target", "tpu", "--json").refusal()

    assert "tpu" in error["message"] and "onnx, tflite" in error["message"]


def test_what_is_not_trained_is_said_at_the_end(call: Command, folder: Path) -> None:
    ran = call("convert", f"{folder}/models.py:idle", "-t", "onnx", "-o", "idle.edgefl", "--json")

    assert ran.json()["report"]["untrained"].keys() == {"spare.weight", "spare.bias"}
    assert "spare.weight: the loss does not depend on it" in ran.err
    assert "Traceback" not in ran.err and "NotTrained" not in ran.err
