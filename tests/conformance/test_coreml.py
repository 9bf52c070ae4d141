# SPDX-License-Identifier: Apache-2.0
"""The vectors on Core ML files, as a phone's Core ML would replay them, and how they are made."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("coremltools")

from edgefl.converters.targets.coreml import selftest
from edgefl.converters.targets.coreml.selftest import MacEngine
from edgefl.runtime.host.conformance import replay
from edgefl.tensorfile import read_tensors
from tests.conformance import make
from tests.coreml_evaluator.model import Model
from tests.host.evaluator import Evaluator, UpdatingEvaluator

VECTORS = Path(__file__).parent / "vectors"


@pytest.mark.parametrize("engine", [Evaluator, UpdatingEvaluator])
def test_the_evaluator_gives_what_the_vectors_say(engine: type[Evaluator]) -> None:
    """Its rounds too: by ML Programs and by update tasks, behind the seam an iPhone's app has."""
    results = replay(VECTORS, engine())
    assert not [result for result in results if result.wrong]
    assert {"step for coreml", "infer for coreml"} <= {r.name for r in results if r.kind == "file"}
    assert sum(result.kind == "round on the engine" for result in results) == 6


def test_a_core_ml_that_computes_otherwise_is_found_out() -> None:
    class Other(Evaluator):
        def run(self, artifact: str, signature: str, tensors: bytes) -> bytes:
            made = {name: value * np.float32(1.01) for name, value in read_tensors(super().run(
                artifact, signature, tensors)).items()}  # fmt: skip
            return make.write_tensors(made)

    wrong = {result.name: result.wrong for result in replay(VECTORS, Other()) if result.wrong}
    assert {"step for coreml", "infer for coreml", "trains"} <= wrong.keys()
    assert "off by 0.01 of its largest element" in wrong["step for coreml"]


def test_a_macs_engine_hands_packages_and_tensors_to_coremltools(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the evaluator as coremltools' model: what Core ML computes, only a Mac can show."""
    opened: list[Any] = []

    class MLModel:
        def __init__(self, path: str, compute_units: str) -> None:
            opened.append((Path(path).suffix, compute_units))
            self._model = Model(path)

        def predict(self, feeds: dict[str, Any]) -> dict[str, Any]:
            return self._model(feeds)

    fake = SimpleNamespace(
        __version__="0", models=SimpleNamespace(MLModel=MLModel), ComputeUnit=SimpleNamespace(CPU_ONLY="cpu")
    )
    monkeypatch.setattr(selftest, "import_coremltools", lambda: fake)
    assert not [result for result in replay(VECTORS, MacEngine()) if result.wrong]
    assert set(opened) == {(".mlpackage", "cpu")}


def test_core_mls_results_are_numpys_but_for_rounding() -> None:
    for kind in ("step", "infer"):
        ours, theirs = (
            read_tensors((VECTORS / f"{kind}-{by}.safetensors").read_bytes()) for by in ("onnx", "coreml")
        )
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            # The longest sum has ten terms, in three layers of products forwards and backwards.
            np.testing.assert_allclose(theirs[name], value, rtol=0, atol=64 * 2.0**-24 * np.abs(value).max())


def test_the_vectors_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "VECTORS", tmp_path / "vectors")
    make.main()
    kept = json.loads((VECTORS / "index.json").read_text())
    assert json.loads((tmp_path / "vectors" / "index.json").read_text()) == kept
    for row in (*kept["packs"], *kept["frames"]):
        assert (tmp_path / "vectors" / row["file"]).read_bytes() == (VECTORS / row["file"]).read_bytes()
