# SPDX-License-Identifier: Apache-2.0
"""No device trains unproved: an engine's own code is tried like any delegate, and wrong ones are passed over.

`planner.edgefl` holds the step of a small attention block, written when LiteRT's rule for sharing memory was
not known to the converter: LiteRT 2.3 computes its gradients wrongly on its own kernels and rightly on
XNNPACK. It is kept as a file because the converter writes no such files any more.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle
from edgefl.errors import BackendFailure, BackendUnavailable, ManifestError
from edgefl.graph import Node, read_onnx, write_onnx
from edgefl.proof import golden_feeds, renewed, stored_sketch
from edgefl.runtime import Trainer, open_backend
from edgefl.runtime.backends.base import Engine, Placed
from edgefl.runtime.delegates.truth import Truth
from tests.fixtures.make import examples, initial_values

pytestmark = pytest.mark.device
FIXTURES = Path(__file__).parents[1] / "fixtures"
X, Y = examples(24)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test makes its own trials."""
    monkeypatch.setenv("EDGEFL_CACHE", str(tmp_path / "cache"))


def wrong(bundle: Bundle) -> Bundle:
    """The bundle with ONNX graphs whose head's kernel gets twice its gradient."""
    graph, output = read_onnx(bundle.artifact("onnx", "step")), "grad/head/kernel"
    nodes = [
        replace(node, outputs=tuple("half" if name == output else name for name in node.outputs))
        for node in graph
    ]
    doubled = replace(graph, nodes=(*nodes, Node("Add", ("half", "half"), (output,))))
    return bundle.with_artifacts([ArtifactData("onnx", "step", write_onnx(doubled))])


@pytest.fixture(scope="session")
def wrong_onnx(mlp: Bundle) -> Bundle:
    return wrong(mlp)


# -- engines that are wrong


@pytest.mark.parametrize("backend", ["onnx", "openvino", "numpy"])
def test_a_named_engine_that_is_wrong_is_an_error(wrong_onnx: Bundle, backend: str) -> None:
    with pytest.raises(
        BackendFailure,
        match=rf"^{backend} ?.* computes step of 'mlp' wrongly: the gradient of 'head/kernel' is off by "
        r"1(\.\d)? times its norm, allowed 0.0001 times$",
    ):
        Trainer(wrong_onnx, backend).fit(X, Y)


def test_auto_passes_over_the_engines_that_are_wrong_and_says_so(wrong_onnx: Bundle, caplog: Any) -> None:
    pytest.importorskip("ai_edge_litert")
    caplog.set_level(logging.WARNING)

    report = Trainer(wrong_onnx).fit(X, Y)

    assert report.backend == "tflite"
    reasons = {speed.engine: speed.reason for speed in report.speeds}
    assert "head/kernel" in reasons["onnx"] and "head/kernel" in reasons["openvino"]
    assert "onnx is passed over" in caplog.text


def test_where_every_engine_is_wrong_none_trains(wrong_onnx: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match=r"no engine here can run .*onnx: .*'head/kernel' is off"):
        Trainer(wrong_onnx.slice("onnx"))


def test_an_applications_own_engine_is_tried_too(mlp: Bundle) -> None:
    class Halved(Engine):
        name, target, version = "own", "onnx", "own 1"

        def load(self, bundle: Bundle, kind: str) -> Any:
            program = open_backend(bundle, "numpy").load(bundle, kind)

            def run(feeds: Any) -> Any:
                return {n: v / 2 if n == "grad/head/bias" else v for n, v in program(feeds).items()}

            return Placed(run, program.placement)

    with pytest.raises(
        BackendFailure, match=r"own 1 .*the gradient of 'head/bias' is off by 0.[456]\d* times"
    ):
        Trainer(mlp, Halved()).fit(X, Y)


def planner() -> Bundle:
    return Bundle.open(FIXTURES / "planner.edgefl")


def test_auto_takes_a_delegate_that_is_right_and_not_the_cpu_that_is_wrong() -> None:
    litert = pytest.importorskip("ai_edge_litert")
    if not litert.__version__.startswith("2.3"):
        pytest.skip("only release 2.3 is known to compute this file wrongly")
    bundle, random = planner(), np.random.default_rng(0)
    x, y = random.normal(size=(8, 8, 6)).astype(np.float32), random.integers(0, 6, 8)

    report = Trainer(bundle).fit(x, y)

    (placement,) = report.placements
    assert placement.delegate == "xnnpack"
    (passed_over,) = placement.tried
    assert (passed_over.delegate, passed_over.state) == ("cpu", "wrong")
    assert "not cpu (wrong: the gradient of 'proj.weight' is off by" in str(placement)
    with pytest.raises(BackendFailure, match=r"'proj.weight' is off by [12](.\d)? times its norm"):
        Trainer(bundle, "tflite", "cpu").fit(x, y)


# -- verdicts


def test_a_verdict_on_an_engine_is_kept(mlp: Bundle, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(mlp, backend, "cpu").fit(X, Y)
    monkeypatch.setattr("edgefl.runtime.backends.proving.try_engine", lambda *_: pytest.fail("tried again"))

    Trainer(mlp, backend, "cpu").fit(X, Y)


def test_a_kept_verdict_condemns_without_a_run(wrong_onnx: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with pytest.raises(BackendFailure, match=r"head/kernel"):
            open_backend(wrong_onnx, "numpy").load(wrong_onnx, "step")
        monkeypatch.setattr("edgefl.runtime.backends.proving.try_engine", lambda *_: pytest.fail("again"))


# -- the proof a bundle carries


def test_a_proof_is_small(mlp: Bundle) -> None:
    assert mlp.manifest.files["proof"].size < 1024


def test_a_proof_is_what_numpy_gives(head: Bundle) -> None:
    for kind in ("features", "step", "infer"):
        truth = Truth.of(head, "onnx", kind)
        made = open_backend(head, "numpy").load(head, kind)(golden_feeds(head, kind))
        assert set(truth.rows) == set(made)
        assert truth.difference(made).excess < 0.01


def test_a_slice_is_proved_without_onnx_graphs(head: Bundle) -> None:
    pytest.importorskip("ai_edge_litert")
    cut = Bundle.open(head.slice("tflite").to_bytes())

    assert cut.manifest.targets == ("tflite",)
    assert Trainer(cut).fit(X, Y).backend == "tflite"


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_new_parameters_leave_the_proof_valid(mlp: Bundle, target: str) -> None:
    moved = {name: value + 1 for name, value in mlp.parameters().items()}
    changed = Bundle.open(mlp.with_parameters(moved, 1).with_parameters(moved, 2).slice(target).to_bytes())

    for name, value in mlp.parameters().items():
        np.testing.assert_array_equal(golden_feeds(changed, "step")[name], value)
        np.testing.assert_array_equal(changed.parameters()[name], moved[name])
    Trainer(changed, target, "cpu").fit(X, Y)


def test_a_renewed_proof_is_of_the_present_parameters(head: Bundle) -> None:
    moved = {name: 2 * value for name, value in head.parameters().items() if name.startswith("head")}
    changed = head.with_parameters(moved, 1)

    anew = renewed(changed)

    assert len(changed.manifest.files) == 3
    assert anew.manifest.files["proof"].size == head.manifest.files["proof"].size
    assert stored_sketch(anew, "onnx", "step") != stored_sketch(head, "onnx", "step")
    np.testing.assert_array_equal(golden_feeds(anew, "step")["head/bias"], moved["head/bias"])
    Trainer(anew, "numpy").fit(X, Y)


def test_a_bundle_without_a_proof_is_judged_by_its_onnx_graphs(mlp: Bundle, backend: str) -> None:
    bare = mlp.with_proof({})

    Trainer(bare, backend).fit(X, Y)


def test_nothing_runs_where_nothing_says_what_is_right(mlp: Bundle) -> None:
    pytest.importorskip("ai_edge_litert")
    bare = mlp.with_proof({}).slice("tflite")

    with pytest.raises(
        BackendUnavailable, match=r"does not say what step must give.*convert the model again"
    ):
        Trainer(bare, "tflite").fit(X, Y)


def test_a_proof_of_other_outputs_is_refused(mlp: Bundle, head: Bundle) -> None:
    strange = mlp.with_proof(head.proof())

    with pytest.raises(ManifestError, match=r"proof of step in bundle 'mlp': a sketch of 5 outputs"):
        Trainer(strange, "numpy").fit(X, Y)


def test_features_of_the_golden_batch_come_with_it(head: Bundle) -> None:
    made = head.proof()["feed/h"]

    values = initial_values()
    x = head.golden()["x"]
    np.testing.assert_allclose(made, np.tanh(x @ values["hidden/kernel"] + values["hidden/bias"]), rtol=1e-5)
