# SPDX-License-Identifier: Apache-2.0
"""What one machine does with a bundle and examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgefl import Bundle, Trainer, decode_delta
from edgefl.bundle import ArtifactData
from edgefl.data import load_examples
from edgefl.graph import Node, read_onnx, write_onnx
from edgefl.runtime import BACKENDS
from tests.cli.commands import Command, save_examples

pytestmark = pytest.mark.device


def test_inspect_lists_parameters_and_artifacts(call: Command, mlp: Path) -> None:
    ran = call("inspect", mlp)

    manifest = Bundle.open(mlp).manifest
    assert ran.status == 0
    assert all(p.name in ran.out for p in manifest.parameters)
    assert all(a.sha256[:16] in ran.out for a in manifest.artifacts)


def test_inspect_as_json_is_the_manifest(call: Command, mlp: Path) -> None:
    found = call("inspect", mlp, "--json").json()
    assert found == {**Bundle.open(mlp).manifest.to_json(), "signature": None}


def test_inspect_shows_what_each_file_takes_and_gives(call: Command, mlp: Path) -> None:
    assert "grad/head/kernel" in call("inspect", mlp, "--signature").out

    files = call("inspect", mlp, "--signature", "--json").json()["files"]

    step = next(f for f in files if (f["target"], f["kind"]) == ("tflite", "step"))
    assert {t["name"]: t["own"] for t in step["tensors"]}["hidden/kernel"] == "hidden_kernel"


def test_verify_compares_the_engines(edgefl: Command, head: Path) -> None:
    ran = edgefl("verify", head)

    assert ran.status == 0
    assert "6 artifacts" in ran.out
    assert "loss of one step on the golden batch" in ran.out
    assert "agrees" in ran.out and "differs" not in ran.out


def test_verify_as_json(edgefl: Command, mlp: Path) -> None:
    checks = edgefl("verify", mlp, "--json").json()["checks"]

    engines = {(c["backend"].split()[0], c["delegate"]) for c in checks}
    assert engines >= {(name, "cpu") for name in ("onnxruntime", "openvino", "ai_edge_litert")}
    assert ("ai_edge_litert", "xnnpack") in engines
    assert {c["kind"] for c in checks} == {"infer", "step"}
    assert {c["verdict"] for c in checks} == {"agrees"}
    assert all(c["difference"] < 0.1 for c in checks)


def test_verify_fails_where_an_engine_differs(edgefl: Command, mlp: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(mlp)
    graph, output = read_onnx(bundle.artifact("onnx", "step")), "grad/head/bias"
    nodes = [
        replace(n, outputs=tuple("half" if name == output else name for name in n.outputs)) for n in graph
    ]
    doubled = replace(graph, nodes=(*nodes, Node("Add", ("half", "half"), (output,))))
    made = ArtifactData("onnx", "step-channels-last", write_onnx(doubled))
    bundle.with_artifacts([made]).save(tmp_path / "wrong.edgefl")

    ran = edgefl("verify", tmp_path / "wrong.edgefl")

    assert ran.status == 1
    assert "differs" in ran.out
    assert "the gradient of 'head/bias' is off by" in " ".join(ran.out.split())


def test_train_writes_the_trained_bundle(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    ran = call("train", mlp, "-d", data, "--epochs", 2, "-b", "numpy", "-o", tmp_path / "trained.edgefl")

    assert ran.status == 0
    assert "24 steps over 96 examples" in ran.out
    examples = load_examples(data)
    trainer = Trainer(Bundle.open(mlp), "numpy")
    trainer.fit(examples.x, examples.y, epochs=2)
    written = Bundle.open(tmp_path / "trained.edgefl").parameters()
    assert all((written[name] == value).all() for name, value in trainer.parameters().items())


def test_train_writes_the_update(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    options = ("-b", "numpy", "--density", 0.1, "--delta", tmp_path / "update.eflu", "--json")
    found = call("train", mlp, "-d", data, *options).json()

    payload = (tmp_path / "update.eflu").read_bytes()
    delta = decode_delta(payload, Bundle.open(mlp))
    assert found["delta_bytes"] == len(payload)
    assert found["times_smaller"] == pytest.approx(4 * 103 / len(payload))
    assert sum(np.count_nonzero(value) for value in delta.values()) == 10
    assert found["backend"] == "numpy" and found["loss_last"] < found["loss_first"]


def test_train_says_what_it_wrote(edgefl: Command, mlp: Path, data: Path) -> None:
    ran = edgefl("train", mlp, "-d", data, "-o", "out.edgefl", "--delta", "out.eflu")

    assert ran.status == 0
    assert "bundle  out.edgefl" in ran.out
    assert "update  out.eflu" in ran.out and "smaller than dense" in ran.out


def test_evaluate(call: Command, mlp: Path, data: Path) -> None:
    found = call("evaluate", mlp, "-d", data, "-b", "numpy", "--json").json()
    ran = call("evaluate", mlp, "-d", data, "-b", "numpy")

    examples = load_examples(data)
    expected = Trainer(Bundle.open(mlp), "numpy").evaluate(examples.x, examples.y)
    assert found == {
        "examples": 96,
        "loss": expected.loss,
        "accuracy": expected.accuracy,
        "weighted": False,
    }
    assert ran.out == f"96 examples: loss {expected.loss:.4f}, accuracy {expected.accuracy:.1%}\n"


def test_evaluate_counts_the_weights_in_the_file(call: Command, mlp: Path, tmp_path: Path) -> None:
    weight = np.tile(np.array([0.0, 2.0, 0.5], np.float32), 32)
    path = save_examples(tmp_path / "weighted.npz", weight=weight)
    examples = load_examples(path)

    ran = call("evaluate", mlp, "-d", path, "-b", "numpy")

    expected = Trainer(Bundle.open(mlp), "numpy").evaluate(examples.x, examples.y, weight)
    loss, accuracy = f"{expected.loss:.4f}", f"{expected.accuracy:.1%}"
    assert ran.out == f"64 examples, weighted, 32 of weight 0 left out: loss {loss}, accuracy {accuracy}\n"


@pytest.fixture
def updates(call: Command, mlp: Path, data: Path, tmp_path: Path) -> list[Path]:
    """Two dense updates, of two learning rates."""
    made = [tmp_path / "a.eflu", tmp_path / "b.eflu"]
    for path, lr in zip(made, (0.05, 0.2), strict=True):
        common = ("train", mlp, "-d", data, "-b", "numpy", "--mode", "float32", "--lr", lr, "--delta", path)
        assert call(*common).status == 0
    return made


def test_aggregate_takes_the_weighted_mean(
    call: Command, mlp: Path, updates: list[Path], tmp_path: Path
) -> None:
    options = ("--weights", "1,3", "-o", tmp_path / "next.edgefl", "--json")
    found = call("aggregate", mlp, *updates, *options).json()

    bundle, made = Bundle.open(mlp), Bundle.open(tmp_path / "next.edgefl")
    first, second = (decode_delta(path.read_bytes(), bundle) for path in updates)
    for name, value in bundle.parameters().items():
        np.testing.assert_allclose(
            made.parameters()[name], value + (first[name] + 3 * second[name]) / 4, rtol=1e-5, atol=1e-6
        )
    assert found["updates"] == 2 and found["model_version"] == made.manifest.model_version == 1


def test_aggregate_says_what_it_made(call: Command, mlp: Path, updates: list[Path]) -> None:
    ran = call("aggregate", mlp, *updates, "-o", "next.edgefl")

    assert ran.status == 0
    assert ran.out.startswith("next.edgefl: version 1, moved by the mean of 2 updates, ")


def test_delta_inspect_accounts_for_every_byte(call: Command, mlp: Path, updates: list[Path]) -> None:
    found = call("delta", "inspect", updates[0], "--json").json()

    coded = sum(stream["coded"] for section in found["sections"] for stream in section["streams"])
    assert found["size"] == updates[0].stat().st_size == found["framing"] + coded
    assert found["schema_id"] == Bundle.open(mlp).schema().id.hex()
    assert found["bits_per_nonzero"] == 8 * found["size"] / found["nonzeros"]


def test_delta_inspect_shows_the_streams(call: Command, mlp: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "update.eflu"
    assert call("train", mlp, "-d", data, "-b", "numpy", "--density", 0.2, "--delta", path).status == 0

    ran = call("delta", "inspect", path)

    assert ran.status == 0
    assert ran.out.startswith(f"{path.stat().st_size} B: 21 values, ")
    assert "section 0: sparse, 21 values of parameters 0 to 102" in ran.out
    assert "gaps" in ran.out and "levels" in ran.out


def test_bench_payload(call: Command, mlp: Path, data: Path) -> None:
    found = call("bench", "payload", mlp, "-d", data, "-b", "numpy", "--json").json()
    ran = call("bench", "payload", mlp, "-b", "numpy")

    assert found["dense_bytes"] == 4 * 103
    assert {row["mode"] for row in found["rows"]} >= {"topk", "unbiased"}
    assert all(row["times_smaller"] == 412 / row["bytes"] for row in found["rows"])
    assert "103 parameters, 412 B as dense float32" in ran.out


def test_bench_step_times_every_engine(edgefl: Command, mlp: Path) -> None:
    found = edgefl("bench", "step", mlp, "--repeats", 3, "--json").json()

    assert [row["engine"].split()[0] for row in found["rows"]] == list(BACKENDS)
    assert all(0 < row["min_ms"] <= row["median_ms"] for row in found["rows"])


def test_bench_step_notes_what_an_engine_lacks(call: Command, mlp: Path, tmp_path: Path) -> None:
    Bundle.open(mlp).slice("onnx").save(tmp_path / "onnx.edgefl")

    ran = call("bench", "step", tmp_path / "onnx.edgefl", "--repeats", 3, columns=60)

    assert ran.status == 0
    lines = ran.out.splitlines()
    start = next(line.index("note") for line in lines if "note" in line)
    note = " ".join(filter(None, (line[start:].strip() for line in lines)))
    assert "'tflite' runs tflite artifacts, bundle 'mlp' has onnx" in note
    assert [line for line in lines if len(line) > 60] == []
