# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle, TensorSpec
from edgefl.errors import BundleEntry, BundleError, DataShape, DataType, ManifestError
from edgefl.parameters import Parameter
from tests.fixtures import minimal
from tests.fixtures.small import small

pytestmark = pytest.mark.device

DIGEST = "181ce56e2485c70358ba20e8077291c9b28870ab871fb9978bcc7dda47a7df7e"


def test_opening_gives_back_what_was_made(bundle: Bundle) -> None:
    opened = Bundle.open(bundle.to_bytes())

    assert opened.manifest == bundle.manifest
    assert opened.artifact("onnx", "infer") == minimal.onnx("infer")
    assert opened.golden()["x"].shape == (4, 2)
    for name, value in bundle.parameters().items():
        np.testing.assert_array_equal(opened.parameters()[name], value)


def test_parameters_come_in_manifest_order(bundle: Bundle) -> None:
    assert list(Bundle.open(bundle.to_bytes()).parameters()) == ["w", "own", "stem", "seen"]


def test_same_input_gives_same_bytes(bundle: Bundle) -> None:
    assert small().to_bytes() == bundle.to_bytes()
    assert small(defaults={"epochs": 2, "lr": 0.1}).to_bytes() == bundle.to_bytes()
    assert Bundle.open(bundle.to_bytes()).to_bytes() == bundle.to_bytes()


def test_the_bytes_do_not_change_between_releases_and_machines(bundle: Bundle) -> None:
    assert hashlib.sha256(bundle.to_bytes()).hexdigest() == DIGEST


def test_saving_and_opening_a_file(bundle: Bundle, tmp_path) -> None:
    bundle.save(tmp_path / "model.edgefl")

    assert Bundle.open(tmp_path / "model.edgefl").manifest == bundle.manifest
    assert [p.name for p in tmp_path.iterdir()] == ["model.edgefl"]


def test_a_missing_file_says_so(tmp_path) -> None:
    with pytest.raises(BundleError, match=r"nothing\.edgefl"):
        Bundle.open(tmp_path / "nothing.edgefl")


def test_the_manifest_is_json_a_person_can_read(bundle: Bundle) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle.to_bytes())) as archive:
        text = archive.read("manifest.json").decode()

    assert json.loads(text) == bundle.manifest.to_json()
    assert '  {"dtype":"float32","name":"w","role":"shared","shape":[2,3]},' in text.splitlines()
    assert max(map(len, text.splitlines())) < 300


def test_schema_covers_the_shared_parameters(bundle: Bundle) -> None:
    assert [p.name for p in bundle.schema().parameters] == ["w"]
    assert bundle.schema().size == 6


def test_with_parameters_replaces_some_and_keeps_the_rest(bundle: Bundle) -> None:
    changed = Bundle.open(bundle.with_parameters({"w": np.full((2, 3), 7, np.float32)}, 4).to_bytes())

    assert changed.manifest.model_version == 4
    assert (changed.parameters()["w"] == 7).all()
    np.testing.assert_array_equal(changed.parameters()["own"], bundle.parameters()["own"])
    assert (bundle.parameters()["w"] != 7).any()


def test_with_parameters_drops_exports_that_hold_old_weights(bundle: Bundle) -> None:
    changed = bundle.with_parameters({}, 1)

    assert changed.manifest.find("onnx", "infer-int8") is None
    assert changed.manifest.find("onnx", "infer") is not None


def test_with_parameters_refuses_what_does_not_fit(bundle: Bundle) -> None:
    with pytest.raises(DataShape, match="no parameter 'nope'"):
        bundle.with_parameters({"nope": np.zeros(1, np.float32)}, 1)
    with pytest.raises(DataShape, match="expected \\(2, 3\\)"):
        bundle.with_parameters({"w": np.zeros((3, 2), np.float32)}, 1)
    with pytest.raises(DataType, match="expected float32"):
        bundle.with_parameters({"w": np.zeros((2, 3))}, 1)


def test_a_slice_has_one_target_and_the_trained_parameters(bundle: Bundle) -> None:
    light = Bundle.open(bundle.slice("onnx").to_bytes())

    assert light.manifest.targets == ("onnx",)
    assert list(light.parameters()) == ["w", "own"]
    assert light.schema().id == bundle.schema().id
    assert len(light.to_bytes()) < len(bundle.to_bytes())


def test_a_slice_of_an_absent_target_says_what_there_is() -> None:
    only = small(artifacts=[ArtifactData("onnx", "step", minimal.onnx("step"))])

    with pytest.raises(BundleEntry, match="'tflite'; it has onnx"):
        only.slice("tflite")


def test_an_absent_artifact_says_what_there_is(bundle: Bundle) -> None:
    with pytest.raises(BundleEntry, match="coreml/infer; it has coreml/step, onnx/infer"):
        bundle.artifact("coreml", "infer")


def test_artifacts_are_added_and_replaced(bundle: Bundle) -> None:
    more = bundle.with_artifacts(
        [ArtifactData("onnx", "step", minimal.onnx("new")), ArtifactData("tflite", "infer", minimal.tflite())]
    )

    opened = Bundle.open(more.to_bytes())
    assert opened.artifact("onnx", "step") == minimal.onnx("new")
    assert opened.artifact("tflite", "infer") == minimal.tflite()
    assert len(opened.manifest.artifacts) == len(bundle.manifest.artifacts) + 1


def test_name_maps_travel(bundle: Bundle) -> None:
    found = Bundle.open(bundle.to_bytes()).manifest.find("tflite", "step")

    assert found is not None
    assert (found.inputs, found.outputs) == ({"own": "own_1"}, {"grad/own": "grad_own_1"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": {"w": np.zeros((2, 3), np.float32)}}, r"missing \['own'\]"),
        ({"values": {"x": np.zeros(1)}}, r"not in the manifest \['x'\]"),
        ({"batch_size": 5}, "expected batch 5 first"),
        ({"batch_size": 0}, "allowed 1 to"),
        ({"name": ""}, "0 characters"),
        ({"label": TensorSpec("y", (), "int32")}, "expected batch 4 first"),
        ({"label": TensorSpec("y", (4,), "string")}, "allowed float64"),
        (
            {"parameters": [Parameter("w", (), "int8", "shared")], "values": {"w": np.int8(1)}},
            "floating point",
        ),
        ({"inputs": [TensorSpec("w", (4, 2), "float32")]}, r"more than once: \['w'\]"),
        ({"inputs": [TensorSpec("weight", (4, 2), "float32")]}, r"more than once: \['weight'\]"),
        ({"artifacts": [ArtifactData("onnx", "train", b"")]}, "kinds are step"),
        ({"artifacts": [ArtifactData("java", "step", b"")]}, "targets are onnx"),
        ({"report": {"worst": float("nan")}}, "JSON"),
        ({"report": {"array": np.zeros(2)}}, "JSON"),
        ({"activation": "Tanh"}, "allowed nothing, Softmax, Sigmoid"),
        ({"model_version": -1}, "allowed 0 to"),
    ],
)
def test_contradictions_are_refused_when_made(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        small(**changes)


def test_a_bundle_shows_itself_in_one_short_line(bundle: Bundle) -> None:
    shown = repr(bundle)

    assert "'small' version 0" in shown and "6 values shared" in shown and "coreml, onnx, tflite" in shown
    assert len(shown) < 200 and "\n" not in shown
