# SPDX-License-Identifier: Apache-2.0
"""Bundles with Core ML in them: kinds, names, small weights, what cannot be made, and the self-test."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgefl
from edgefl.bundle import Bundle
from edgefl.converters.graft import bind
from edgefl.converters.targets.coreml import (
    compressed_models,
    to_compressed,
    to_coreml,
    validate,
    with_coreml,
)
from edgefl.converters.targets.coreml.golden import golden_inputs
from edgefl.converters.targets.coreml.selftest import UNITS, on_device, selftest
from edgefl.converters.targets.single import single
from edgefl.errors import BackendUnavailable, BundleError, ConversionError
from edgefl.graph import Graph, read_onnx, run
from tests.converters.coreml_oracle import execute, run_package

pytest.importorskip("coremltools")

SHAPE = (3, 16, 16)


def network() -> nn.Module:
    """Convolutions that stay frozen and a dense head that is trained."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 16),
        nn.Tanh(),
        nn.Linear(16, 5),
    )


def examples(count: int = 32) -> Any:
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype(np.float32)


def convert(model: nn.Module, **options: Any) -> Bundle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        return edgefl.convert(model, examples(4), batch_size=4, name="small", **options)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A bundle with every kind of Core ML file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return convert(network(), targets=("coreml",), trainable="last:2", calibration=examples())


def deployed(bundle: Bundle, kind: str = "infer") -> Graph:
    whole = read_onnx(bundle.artifact("onnx", kind))
    return single(bind(whole, {n: v for n, v in bundle.parameters().items() if n in whole.inputs}))


def test_a_bundle_holds_every_kind(bundle: Bundle) -> None:
    paths = [a.path for a in bundle.manifest.artifacts if a.target == "coreml"]

    assert paths == [
        "artifacts/coreml/features.mlpackage.zip",
        "artifacts/coreml/features-int8.mlpackage.zip",
        "artifacts/coreml/infer.mlpackage.zip",
        "artifacts/coreml/infer-int8.mlpackage.zip",
        "artifacts/coreml/step.mlpackage.zip",
        "artifacts/coreml/step-float16.mlpackage.zip",
        "artifacts/coreml/updatable.mlmodel",
    ]
    assert Bundle.open(bundle.to_bytes()).manifest == bundle.manifest


def test_the_manifest_maps_contract_names(bundle: Bundle) -> None:
    step = bundle.manifest.find("coreml", "step")

    assert step is not None
    assert step.inputs["6.weight"] == "t_6_weight"
    assert step.outputs["grad/6.weight"] == "grad_6_weight"
    assert "loss" not in step.outputs


def test_coremltools_accepts_every_file(bundle: Bundle) -> None:
    for artifact in bundle.manifest.artifacts:
        if artifact.target == "coreml":
            validate(artifact.kind, bundle.artifact("coreml", artifact.kind))


def test_other_bytes_are_no_package() -> None:
    with pytest.raises(BundleError):
        validate("step", b"PK nothing")


def test_features_then_step_give_the_references_gradients(bundle: Bundle) -> None:
    found: dict[str, Any] = {}
    for kind in ("features", "step"):
        graph = read_onnx(bundle.artifact("onnx", kind))
        artifact = bundle.manifest.find("coreml", kind)
        assert artifact is not None
        feeds = {**golden_inputs(bundle, graph), **{n: v for n, v in found.items() if n in graph.inputs}}
        made = run_package(
            bundle.artifact("coreml", kind), {artifact.inputs.get(n, n): v for n, v in feeds.items()}
        )
        found = {n: made[artifact.outputs.get(n, n)] for n in graph.outputs}

    expected = run(graph, golden_inputs(bundle, graph))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].reshape(value.shape), value, atol=1e-5)


def test_new_parameters_drop_what_holds_the_old_ones(bundle: Bundle) -> None:
    newer = bundle.with_parameters({}, 1)

    kinds = {a.kind for a in newer.manifest.artifacts if a.target == "coreml"}
    assert kinds == {"step", "step-float16", "features", "features-int8", "infer"}


def test_what_cannot_be_made_is_left_out_with_the_reason() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    report = convert(model, targets=("coreml:iOS17",)).manifest.report["targets"]["coreml"]

    assert report["step"]["target"] == "iOS17"
    assert "layer_norm" in report["updatable"]["left_out"]


def test_weights_stored_in_few_bits_are_unpacked() -> None:
    bundle = convert(network(), targets=("onnx",), trainable="last:1", frozen_bits=4)
    graph = read_onnx(bundle.artifact("onnx", "features"))
    feeds = golden_inputs(bundle, graph)

    found = execute(to_coreml(graph, "features"), graph, feeds)

    for name, value in run(graph, feeds).items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_unknown_systems_are_refused_before_any_work() -> None:
    with pytest.raises(ConversionError, match="iOS16, iOS17, iOS18"):
        convert(network(), targets=("coreml:iOS3",))
    with pytest.raises(ConversionError, match="onnx, tflite, coreml"):
        convert(network(), targets=("corelm",))


def test_a_bundle_without_core_ml_gets_it_later(bundle: Bundle) -> None:
    plain = Bundle.open(bundle.to_bytes())
    without = plain.slice("onnx")

    made = with_coreml(without, "iOS18")

    assert made.manifest.report["targets"]["coreml"]["step"]["target"] == "iOS18"


# -- small weights


@pytest.mark.parametrize(
    ("weights", "target", "tolerance"),
    [("int8", "iOS16", 0.03), ("int4", "iOS18", 0.3), ("palette4", "iOS16", 0.3)],
)
def test_small_weights_predict_nearly_the_same(
    bundle: Bundle, weights: str, target: str, tolerance: float
) -> None:
    graph = deployed(bundle)
    feeds = {"x": examples(1)}
    whole = sum(value.nbytes for value in graph.constants.values())

    made = to_compressed(graph, "infer-int8", weights=weights, target=target)

    expected = run(graph, feeds)["output"]
    found = execute(made, graph, feeds)["output"]
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)
    assert any(name.startswith("constexpr_") for name in made.operators)
    assert len(made.data) < whole * {"int8": 0.55, "int4": 0.5, "palette4": 0.45}[weights]


def test_activations_are_rounded_from_ios_17_on(bundle: Bundle) -> None:
    graph = deployed(bundle)
    feeds = [{"x": one[None]} for one in examples(16)]

    made = to_compressed(graph, "infer-int8", target="iOS17", calibration=feeds)

    assert made.operators["quantize"] == made.operators["dequantize"] == 4
    expected = np.concatenate([run(graph, feed)["output"] for feed in feeds])
    found = np.concatenate([execute(made, graph, feed)["output"] for feed in feeds])
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_what_a_system_cannot_hold_is_refused(bundle: Bundle) -> None:
    graph = deployed(bundle)

    with pytest.raises(ConversionError, match="iOS18"):
        to_compressed(graph, "infer-int8", weights="int4", target="iOS17")
    with pytest.raises(ConversionError, match="activations in int8 need Core ML target iOS17"):
        to_compressed(graph, "infer-int8", calibration=[{"x": examples(1)}])
    with pytest.raises(ConversionError, match="int8, int4, palette4"):
        to_compressed(graph, "infer-int8", weights="int2")


def test_a_normalisation_without_a_product_before_it_is_compressed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 32, 5), nn.Flatten(), nn.Linear(4608, 5)
        model = nn.Sequential(*layers)
        nn.init.normal_(model[0].weight)
        nn.init.normal_(model[0].bias)
        made = convert(model, targets=("onnx",))
    graph, feeds = deployed(made), {"x": examples(1)}

    found = execute(compressed_models(made, examples())["infer-int8"], graph, feeds)["output"]

    expected = run(graph, feeds)["output"]
    # Weights in eight bits, the rest in float16: one to three per cent of a random network's small outputs.
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_compression_gives_equal_bytes(bundle: Bundle) -> None:
    made = compressed_models(bundle, examples())

    assert made["infer-int8"].data == bundle.artifact("coreml", "infer-int8")
    assert made["features-int8"].data == bundle.artifact("coreml", "features-int8")


# -- the self-test


def test_the_self_test_compares_every_package_on_every_unit(bundle: Bundle) -> None:
    outcomes = list(selftest(bundle, lambda units: run_package))

    assert {outcome.kind for outcome in outcomes} == {"step", "step-float16", "features", "infer"}
    assert [outcome.units for outcome in outcomes[:4]] == list(UNITS)
    assert {outcome.verdict for outcome in outcomes} == {"agrees"}


def test_the_self_test_says_what_differs_and_what_fails(bundle: Bundle) -> None:
    def wrong(data: bytes, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value + 1 for name, value in run_package(data, feeds).items()}

    def broken(data: bytes, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        raise RuntimeError("no such unit")

    found = list(selftest(bundle, lambda units: wrong if units == "ALL" else broken))

    assert {o.verdict for o in found if o.units == "ALL"} == {"differs"}
    assert {o.verdict for o in found if o.units != "ALL"} == {"failed: no such unit"}


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is here")
def test_elsewhere_the_self_test_says_what_it_needs() -> None:
    with pytest.raises(BackendUnavailable, match="on a Mac"):
        on_device("ALL")


# -- commands


def test_commands_know_the_files(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgefl.cli import coreml
    from edgefl.cli.verify import check_engines

    rows = coreml.write_packages(bundle, tmp_path)

    assert {row["kind"] for row in rows} == {
        a.kind for a in bundle.manifest.artifacts if a.target == "coreml"
    }
    assert (tmp_path / "step.mlpackage" / "Data" / "com.apple.CoreML" / "model.mlmodel").is_file()
    assert (tmp_path / "updatable.mlmodel").is_file()
    assert '"loss_scale"' in (tmp_path / "coreml.json").read_text()
    verdicts = {check.backend: check.verdict for check in check_engines(bundle)}
    assert verdicts["coreml"].startswith("valid files, not run")
    notes = {row[0]: row[-1] for row in coreml.files(bundle.manifest)}
    assert "loss scale" in str(notes["step-float16"])
    assert notes["updatable"] == "2 trained layers, sgd"
