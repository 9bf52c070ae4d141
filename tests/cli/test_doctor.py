# SPDX-License-Identifier: Apache-2.0
"""What `edgefl doctor` says about the files of a bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import ArtifactData, Bundle
from edgefl.cli.doctor_artifacts import File, files, show_files
from tests.cli.commands import Command
from tests.fixtures import minimal

_ON_OLDER = "import sys; sys.modules['ai_edge_litert'] = None; from edgefl.cli import main; main()"


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose frozen weights have four bits, for TFLite and ONNX."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("tensorflow")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3))
    path = tmp_path_factory.mktemp("four") / "four.edgefl"
    edgefl.convert(model, np.zeros((1, 64), np.float32), trainable="2.*", frozen_bits=4).save(path)
    return path


def by_path(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in found}


def on_older(*arguments: object) -> str:
    """The command where tflite-runtime is installed and LiteRT is not."""
    command = [sys.executable, "-c", _ON_OLDER, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout


def with_target(bundle: Bundle, target: str, kind: str) -> Bundle:
    data = minimal.mlpackage() if target == "coreml" else minimal.onnx("no engine reads this")
    return bundle.with_artifacts([ArtifactData(target, kind, data)])


def only(found: list[File], target: str) -> File:
    return next(file for file in found if file.target == target)


def test_four_bits_need_litert(four_bits: Path) -> None:
    found = by_path(json.loads(on_older("doctor", four_bits, "--json"))["files"])

    lite = found["artifacts/tflite/features.tflite"]
    assert lite["runs_on"] == []
    assert lite["refused"]["tflite"].startswith("tflite_runtime 2.14")
    assert lite["needs"] == {"release": "LiteRT 1.0", "operator": "DEQUANTIZE 6"}
    assert "pip install 'ai-edge-litert>=1.2'" in lite["advice"] and "frozen_bits=8" in lite["advice"]
    step = found["artifacts/tflite/step.tflite"]
    assert len(step["runs_on"]) == 1 and step["advice"] == "" and not step["needs"]["release"].startswith("L")
    assert found["artifacts/onnx/features.onnx"]["needs"] is None


def test_a_reason_is_said_once_for_all_files_it_holds_for(four_bits: Path) -> None:
    said = [line for line in on_older("doctor", four_bits).splitlines() if "DEQUANTIZE version 6" in line]

    assert len(said) == 1
    assert said[0].startswith("artifacts/tflite/features.tflite, artifacts/tflite/infer.tflite: tflite_run")
    assert "LiteRT 1.0 or newer" in said[0]


def test_litert_runs_four_bits(call: Command, four_bits: Path) -> None:
    found = by_path(call("doctor", four_bits, "--json").json()["files"])

    lite = found["artifacts/tflite/features.tflite"]
    assert [engine.split()[0] for engine in lite["runs_on"]] == ["ai_edge_litert"]
    assert lite["refused"] == lite["missing"] == {} and lite["advice"] == ""
    assert lite["needs"]["release"] == "LiteRT 1.0"


def test_every_onnx_file_is_loaded_by_every_engine(mlp: Path) -> None:
    for file in files(Bundle.open(mlp)):
        names = [engine.split()[0] for engine in file.runs_on]
        assert (
            names == {"onnx": ["onnxruntime", "openvino", "numpy"], "tflite": ["ai_edge_litert"]}[file.target]
        )


def test_what_is_not_installed_is_named_with_what_brings_it(
    mlp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("openvino", "ai_edge_litert", "ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, module, None)
    found = files(Bundle.open(mlp))

    assert "pip install 'openvino>=" in only(found, "onnx").missing["openvino"]
    assert only(found, "tflite").runs_on == ()
    show_files(found)
    shown = capsys.readouterr().out
    assert "pip install 'ai-edge-litert>=1.2'" in shown
    assert "openvino>=" not in shown  # another engine runs those files


@pytest.mark.parametrize(
    ("target", "kind", "reason"), [("coreml", "step", "Apple"), ("onnx", "infer-int8", "refuses")]
)
def test_files_nothing_here_runs_come_with_reasons(mlp: Path, target: str, kind: str, reason: str) -> None:
    found = next(
        f for f in files(with_target(Bundle.open(mlp), target, kind)) if f.kind == kind and f.target == target
    )

    assert found.runs_on == ()
    assert all(reason in said for said in (*found.refused.values(), *found.missing.values()))


@pytest.mark.parametrize(
    "report", [{}, {"targets": 3}, {"targets": {"tflite": {"step": {"min_runtime": 1}}}}]
)
def test_reports_from_elsewhere_may_say_nothing(mlp: Path, report: Mapping[str, Any]) -> None:
    from dataclasses import replace

    bundle = Bundle.open(mlp)
    found = files(Bundle(replace(bundle.manifest, report=report), bundle._files))

    assert only(found, "tflite").needs is not None
    assert only(found, "tflite").runs_on


def test_what_a_delegate_lacks_is_said_once(call: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    shown = call("doctor", columns=400).out

    assert shown.count("backend 'onnx' needs onnxruntime") == 1
    assert shown.count("on the library path:") == shown.count("was built without") == 0
