# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle
from edgefl.errors import BackendFailure, BackendUnavailable, DataShape, OptionError
from edgefl.runtime import open_backend
from edgefl.runtime.backends.openvino import distinct_names
from tests.fixtures import minimal

pytestmark = pytest.mark.device


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make imports of these modules fail, as where they are not installed."""
    for name in modules:
        for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)


def feeds(bundle: Bundle) -> dict[str, np.ndarray]:
    return {**bundle.golden(), **bundle.parameters()}


def test_the_step_gives_loss_and_gradients_by_contract_names(mlp: Bundle, backend: str) -> None:
    made = open_backend(mlp, backend).load(mlp, "step")(feeds(mlp))

    assert set(made) == {"loss", *(f"grad/{n}" for n in mlp.parameters())}
    assert made["loss"].shape == ()
    for name, value in mlp.parameters().items():
        assert (made[f"grad/{name}"].shape, made[f"grad/{name}"].dtype) == (value.shape, np.float32)


def test_the_gradient_is_the_slope_of_the_loss(mlp: Bundle, backend: str) -> None:
    program = open_backend(mlp, backend).load(mlp, "step")
    given = feeds(mlp)
    gradients = {name: value.copy() for name, value in program(given).items()}
    random = np.random.Generator(np.random.PCG64(5))

    for name, value in mlp.parameters().items():
        direction = random.normal(size=value.shape).astype(np.float32)
        up, down = (
            float(program({**given, name: value + s * direction})["loss"])
            for s in (np.float32(1e-2), np.float32(-1e-2))
        )
        slope = float((gradients[f"grad/{name}"] * direction).sum())
        assert (up - down) / 2e-2 == pytest.approx(slope, rel=2e-3, abs=2e-4)


def test_infer_takes_data_and_parameters(mlp: Bundle, backend: str) -> None:
    made = open_backend(mlp, backend).load(mlp, "infer")({"x": mlp.golden()["x"], **mlp.parameters()})

    p, x = mlp.parameters(), mlp.golden()["x"]
    hidden = np.tanh(x @ p["hidden/kernel"] + p["hidden/bias"])
    np.testing.assert_allclose(
        made["output"], hidden @ p["head/kernel"] + p["head/bias"], rtol=1e-5, atol=1e-6
    )


def test_features_take_data_alone(head: Bundle, backend: str) -> None:
    made = open_backend(head, backend).load(head, "features")({"x": head.golden()["x"]})

    assert made["h"].shape == (8, 10)


def test_wrong_feeds_are_refused(mlp: Bundle, backend: str) -> None:
    program = open_backend(mlp, backend).load(mlp, "step")
    given = feeds(mlp)
    del given["weight"]

    with pytest.raises((BackendFailure, DataShape)):
        program(given)


def test_an_artifact_that_is_none_is_refused(mlp: Bundle, backend: str) -> None:
    empty = {"onnx": minimal.onnx("step"), "tflite": minimal.tflite()}
    broken = mlp.with_artifacts([ArtifactData(target, "step", data) for target, data in empty.items()])

    with pytest.raises(BackendFailure, match="refuses artifacts/"):
        open_backend(broken, backend).load(broken, "step")


def test_an_absent_artifact_says_what_there_is(mlp: Bundle, backend: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"has no artifact \w+/features; it has onnx/infer"):
        open_backend(mlp, backend).load(mlp, "features")


def test_auto_takes_the_first_that_can(mlp: Bundle, monkeypatch) -> None:
    without(monkeypatch, "onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime")

    assert open_backend(mlp).name == "numpy"


def test_auto_takes_what_the_bundle_has(mlp: Bundle) -> None:
    assert open_backend(mlp.slice("tflite")).name == "tflite"
    assert open_backend(mlp.slice("onnx")).target == "onnx"


def test_auto_tells_why_nothing_can(mlp: Bundle, monkeypatch) -> None:
    without(monkeypatch, "ai_edge_litert", "tflite_runtime")

    with pytest.raises(BackendUnavailable, match=r"pip install .*ai-edge-litert") as caught:
        open_backend(mlp.slice("tflite"))
    assert "numpy" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "modules", "package"),
    [
        ("onnx", ["onnxruntime"], "onnxruntime"),
        ("openvino", ["openvino"], "openvino"),
        ("tflite", ["ai_edge_litert", "tflite_runtime"], "ai-edge-litert"),
    ],
)
def test_a_missing_engine_names_what_brings_it(
    mlp: Bundle, monkeypatch, name: str, modules, package: str
) -> None:
    without(monkeypatch, *modules)

    with pytest.raises(BackendUnavailable) as caught:
        open_backend(mlp, name)
    assert f"pip install '{package}>=" in str(caught.value)
    assert "'numpy'" in str(caught.value)


def test_a_bundle_without_the_engines_artifacts(mlp: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match="has tflite"):
        open_backend(mlp.slice("tflite"), "numpy")


def test_unknown_backends_are_refused(mlp: Bundle) -> None:
    with pytest.raises(OptionError, match="allowed auto, onnx, openvino, tflite, numpy"):
        open_backend(mlp, "torch")


@pytest.mark.parametrize("delegate", ["auto", "none", "cpu"])
def test_the_cpu_is_no_delegate_library(mlp: Bundle, delegate: str) -> None:
    assert open_backend(mlp, "tflite", delegate).name == "tflite"


def test_a_delegate_library_that_is_not_there(mlp: Bundle) -> None:
    for name in ("auto", "tflite"):
        with pytest.raises(BackendUnavailable, match="libnothing"):
            open_backend(mlp, name, "./libnothing.so")


def test_a_library_that_is_no_delegate(mlp: Bundle) -> None:
    library = ctypes.util.find_library("c")

    assert library is not None
    with pytest.raises(BackendUnavailable, match=r"cannot be loaded.*tflite_plugin"):
        open_backend(mlp, "tflite", library)


def test_a_delegate_library_needs_tflite(mlp: Bundle) -> None:
    with pytest.raises(OptionError, match="works with backend tflite"):
        open_backend(mlp, "onnx", "./libnothing.so")


def test_the_version_names_the_package(mlp: Bundle, backend: str) -> None:
    package, version = open_backend(mlp, backend).version.split()

    assert package in ("onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime", "numpy")
    assert version[0].isdigit()


def test_outputs_that_share_their_names_get_one_each() -> None:
    """As OpenVINO 2024.6 names two outputs that are one tensor."""
    ports = [SimpleNamespace(get_names=lambda n=n: set(n)) for n in ("a", "bc", "d", "cb")]

    assert distinct_names(ports) == ["a", "b", "d", "c"]


def test_a_feed_of_another_shape_is_refused(backend: str, mlp: Bundle) -> None:
    """LiteRT would give its tensors new sizes, of which delegates that took the old ones know nothing."""
    program = open_backend(mlp, backend).load(mlp, "infer")
    feeds = {"x": mlp.golden()["x"], **mlp.parameters()}
    program(feeds)

    with pytest.raises((BackendFailure, DataShape), match=r"shape|[Dd]imension"):
        program({**feeds, "x": feeds["x"][:3]})
