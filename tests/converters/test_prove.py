# SPDX-License-Identifier: Apache-2.0
"""No file leaves a conversion unproved."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgefl
from edgefl.bundle import ArtifactData, Bundle
from edgefl.converters import engines
from edgefl.converters.engines import Engine, Finding, tried
from edgefl.converters.golden import Goldens, draw_golden
from edgefl.converters.prove import GOLDEN, RANDOM, Proof, check, examine, prove, prove_anew
from edgefl.converters.targets import export_int8
from edgefl.converters.targets.run import run_onnx
from edgefl.errors import NotProved, WrongElsewhere
from edgefl.graph import Graph, Node, read_onnx, write_onnx
from edgefl.proof import sketched, stored_sketch

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

FIXTURES = Path(__file__).parents[1] / "fixtures"
EXAMPLES = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def silent(stage: str) -> None:
    pass


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return edgefl.convert(network(), np.zeros((1, 5), np.float32), batch_size=4)


@pytest.fixture
def mlp() -> Bundle:
    return Bundle.open(FIXTURES / "mlp.edgefl")


def doubled(bundle: Bundle, kind: str, output: str) -> ArtifactData:
    """The ONNX step with one output twice what it should be, as another artifact."""
    return twice(read_onnx(bundle.artifact("onnx", "step")), kind, output)


def twice(graph: Graph, kind: str, output: str) -> ArtifactData:
    nodes = [
        replace(n, outputs=tuple("half" if name == output else name for name in n.outputs)) for n in graph
    ]
    made = replace(graph, nodes=(*nodes, Node("Add", ("half", "half"), (output,))))
    return ArtifactData("onnx", kind, write_onnx(made))


# -- what is tried


def test_every_engine_runs_every_file_with_and_without_its_delegate(bundle: Bundle) -> None:
    proof = bundle.manifest.report["proof"]

    rows = {(r["engine"].split()[0], r["delegate"]): r for r in proof["engines"]}
    assert {name for name, _ in rows} == {
        e.package for e in engines.installed() if e.target != "ort-training"
    }
    assert {"cpu", "xnnpack"} <= {d for name, d in rows if name in ("ai_edge_litert", "tflite_runtime")}
    assert all(set(row["right"]) >= {"step", "infer"} and row["not"] == {} for row in rows.values())
    assert proof["batches"] == [GOLDEN, RANDOM]
    assert all(any(char.isdigit() for char in row["engine"]) for row in rows.values())


@pytest.fixture(scope="module")
def integers() -> Bundle:
    pytest.importorskip("tensorflow")
    return edgefl.convert(
        network(), EXAMPLES[:1], batch_size=4, calibration=EXAMPLES, trainable="last:1", prove=False
    )


def test_integers_are_tried_on_their_own_numbers(integers: Bundle) -> None:
    proof = prove_anew(integers, silent)

    right = {(f.target, f.delegate, f.kind, f.batch) for f in proof.findings if f.state == "right"}
    kinds = ("features", "features-int8", "infer", "infer-int8", "step")
    places = [("onnx", "cpu"), ("tflite", "cpu"), ("tflite", "xnnpack")]
    assert right >= {
        (*place, kind, batch) for place in places for kind in kinds for batch in (GOLDEN, RANDOM)
    }


def test_progress_is_told() -> None:
    stages = list[str]()

    edgefl.convert(
        network(), np.zeros((1, 5), np.float32), batch_size=4, targets=("onnx",), on_stage=stages.append
    )

    assert any(stage.startswith("proving the files on onnxruntime") for stage in stages)


def test_without_proof_the_manifest_says_so() -> None:
    made = edgefl.convert(
        network(), np.zeros((1, 5), np.float32), batch_size=4, targets=("onnx",), prove=False
    )

    assert made.manifest.report["proof"] == {"batches": [], "kinks": [], "engines": []}
    assert edgefl.Trainer(made).fit(np.zeros((4, 5), np.float32), np.zeros(4, np.int32)).steps == 1


def test_a_finished_bundle_is_proved_anew(bundle: Bundle) -> None:
    moved = bundle.with_parameters({n: v + 1 for n, v in bundle.parameters().items()}, 1)

    assert {f.state for f in prove_anew(moved, silent).findings} == {"right"}


# -- what is wrong


def test_a_file_that_one_of_its_engines_gets_wrong_is_not_written() -> None:
    if not any(e.package == "ai_edge_litert" for e in engines.installed()):
        pytest.skip("ai-edge-litert is not installed")
    old = Bundle.open(FIXTURES / "planner.edgefl")

    proof = examine({GOLDEN: old}, silent)

    wrong = [f for f in proof.findings if f.blocks]
    if not any("2.3" in f.engine for f in proof.findings):
        pytest.skip("only LiteRT 2.3 is known to compute this file wrongly")
    assert ("ai_edge_litert 2.3.0", "cpu") in {(f.engine, f.delegate) for f in wrong}
    assert "xnnpack" not in {f.delegate for f in wrong}
    with pytest.raises(
        NotProved,
        match=r"on the golden batch, tflite/step is computed wrongly by ai_edge_litert 2\.3.*: the gradient "
        r"of 'proj.weight' is off by .* allowed 0.0001 times.* Nothing is written: leave the target 'tflite'",
    ):
        check(proof)


def test_a_writers_mistake_is_an_error_that_names_parameter_and_engine(bundle: Bundle) -> None:
    wrong = bundle.with_artifacts([doubled(bundle, "step-channels-last", "grad/2.bias")])

    with pytest.raises(
        NotProved, match=r"onnx/step-channels-last is computed wrongly by onnxruntime .*'2.bias'"
    ):
        prove(wrong, Goldens(), silent)


def test_convert_refuses_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = importlib.import_module("edgefl.converters.convert")
    whole = pipeline._artifacts

    def spoiled(*args: Any) -> Any:
        made, report = whole(*args)
        (step,) = (artifact for artifact in made if artifact.kind == "step")
        return [*made, twice(read_onnx(step.data), "step-channels-last", "grad/2.bias")], report

    monkeypatch.setattr(pipeline, "_artifacts", spoiled)

    with pytest.raises(NotProved, match=r"the gradient of '2\.bias'"):
        edgefl.convert(network(), np.zeros((1, 5), np.float32), batch_size=4, targets=("onnx",))


def test_integers_that_fail_away_from_the_golden_batch_are_not_written(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file divides whole numbers by zero where an input is beyond 2, which takes onnxruntime down."""
    pytest.importorskip("tensorflow")
    pipeline = importlib.import_module("edgefl.converters.convert")
    whole = pipeline._int8_artifacts

    def spoiled(*args: Any) -> list[ArtifactData]:
        (made,) = whole(*args)
        return [replace(made, data=write_onnx(dividing(read_onnx(made.data), 2.0)))]

    monkeypatch.setattr(pipeline, "_int8_artifacts", spoiled)
    examples = np.clip(EXAMPLES, -1.5, 1.5)
    golden = draw_golden(bundle.manifest, {"x": examples})["x"]
    examples[~(examples[:, None] == golden).all(-1).any(1)] = 3

    with pytest.raises(NotProved, match=r"^on a batch drawn at random, onnx/infer-int8 takes down"):
        edgefl.convert(network(), EXAMPLES[:1], batch_size=4, targets=("onnx",), calibration=examples)


def test_engines_may_be_as_far_from_integers_as_these_are_from_the_float_graph(integers: Bundle) -> None:
    """Each rounds in every layer as the file does, and one unit rounded the other way is as good."""
    row = stored_sketch(integers, "onnx", "infer-int8")["output"]
    x = integers.golden()["x"]
    whole = edgefl.Trainer(integers, backend="numpy").predict(x)[:1]
    made = run_onnx(integers.artifact("onnx", "infer-int8"), [{"x": x[:1]}])[0]["output"]

    off = np.linalg.norm(made - whole)

    assert 0 < off < 0.1 * row.norm
    # onnxruntime's own rounding may move one of the three outputs by a level, less than all are off.
    assert row.slack == pytest.approx(2 * off, rel=0.5)


def dividing(graph: Graph, most: float) -> Graph:
    """The graph with 0 added to its output, 0 divided by 0 where an element of x is larger than `most`."""
    constants = {
        **graph.constants,
        "most": np.float32(most),
        "axes": np.array([0, 1], np.int64),
        "none": np.int32(0),
        "one": np.int32(1),
    }
    nodes = [replace(n, outputs=tuple("before" if o == "output" else o for o in n.outputs)) for n in graph]
    nodes += [
        Node("ReduceMax", ("x", "axes"), ("largest",), {"keepdims": 0}),
        Node("Greater", ("largest", "most"), ("beyond",)),
        Node("Where", ("beyond", "none", "one"), ("divisor",)),
        Node("Div", ("none", "divisor"), ("nothing",)),
        Node("Cast", ("nothing",), ("added",), {"to": 1}),
        Node("Add", ("before", "added"), ("output",)),
    ]
    return replace(graph, nodes=tuple(nodes), constants=constants)


def test_integers_that_are_wrong_away_from_the_golden_batch_alone(integers: Bundle) -> None:
    """The file's numbers end where those of the golden batch do, as if calibrated on nothing else."""
    small = EXAMPLES / 8
    right = {
        GOLDEN: Goldens({"x": small}).on(integers, 0),
        RANDOM: Goldens({"x": EXAMPLES}).on(integers, 1),
    }
    narrow = export_int8(integers, small).files
    spoiled = [ArtifactData(target, "infer-int8", data) for target, data in narrow.items()]

    proof = examine({batch: bundle.with_artifacts(spoiled) for batch, bundle in right.items()}, silent)

    wrong = {(f.target, f.kind, f.batch) for f in proof.findings if f.state == "wrong"}
    assert wrong == {(target, "infer-int8", RANDOM) for target in ("onnx", "tflite")}
    with pytest.raises(NotProved, match=r"on a batch drawn at random, .*/infer-int8 is computed wrongly"):
        check(proof)


def only(monkeypatch: pytest.MonkeyPatch, *rows: Engine) -> None:
    monkeypatch.setattr("edgefl.converters.prove.installed", lambda: list(rows))


def test_an_engine_that_shares_a_file_does_not_block_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = bundle.with_artifacts([doubled(bundle, "step-channels-last", "grad/2.bias")])
    only(monkeypatch, Engine("onnxruntime", "onnx", shares=True))

    _, proof = prove(wrong, Goldens(), silent)

    (note,) = {note for note in proof.notes if GOLDEN in note}
    assert "onnx/step-channels-last is computed wrongly by onnxruntime" in note
    assert "devices pass over that engine" in note
    (row,) = (r for r in proof.to_json()["engines"])
    assert row["not"]["step-channels-last"].startswith("wrong: the gradient of '2.bias' is off by")


def test_a_disagreement_of_an_engine_that_shares_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = importlib.import_module("edgefl.converters.convert")
    finding = Finding(
        GOLDEN, "openvino 1", "cpu", "onnx", "step", "wrong", "the loss is off", 9.0, shares=True
    )
    monkeypatch.setattr(pipeline.proving, "prove", lambda b, *_: (b, Proof((finding,), (GOLDEN,))))

    with pytest.warns(WrongElsewhere, match="onnx/step is computed wrongly by openvino 1: the loss is off"):
        made = edgefl.convert(network(), np.zeros((1, 5), np.float32), batch_size=4, targets=("onnx",))

    assert any("computed wrongly by openvino 1" in note for note in made.manifest.report["notes"])


# -- engines that are lost


def test_a_file_that_takes_its_engine_down_is_refused_and_the_next_is_tried(
    mlp: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is another program here, which ends when asked about `step`."""
    script = tmp_path / "prover.py"
    script.write_text(
        "import json, os, sys\n"
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    if request['kind'] == 'step': os.abort()\n"
        "    row = dict(state='right', reason='', error=0.0)\n"
        "    answer = dict(version='fragile 1', delegates=[], verdicts=[row])\n"
        "    print(json.dumps(answer), flush=True)\n"
    )
    monkeypatch.setattr(engines, "_PROVER", "prover")
    monkeypatch.setattr(engines, "_WORKERS", {})
    monkeypatch.syspath_prepend(str(tmp_path))

    found = tried(Engine("fragile", "onnx"), {GOLDEN: tmp_path / "b.edgefl"}, ["step", "infer"])

    assert [(f.kind, f.state) for f in found] == [("step", "crashed"), ("infer", "right")]
    assert found[0].blocks and "takes down fragile 1" in str(found[0])
    engines._end()


def test_an_engine_that_refuses_a_file_blocks_nothing(mlp: Bundle) -> None:
    graph = read_onnx(mlp.artifact("onnx", "step"))
    strange = replace(graph, nodes=tuple(replace(n, op="Tanh2") if n.op == "Tanh" else n for n in graph))
    other = mlp.with_artifacts([ArtifactData("onnx", "step-channels-last", write_onnx(strange))])

    proof = examine({GOLDEN: other}, silent)

    assert {f.state for f in proof.findings if f.kind == "step-channels-last"} == {"refused"}
    check(proof)


# -- kinks


def test_a_difference_that_is_gone_beside_a_kink_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden batch lies on a kink, where 0 is as right as 1, and its neighbours do not.

    The file takes the other side at the kink itself: as right a gradient there as any.
    """
    model = torch.nn.Linear(2, 2, bias=False)
    bundle = edgefl.convert(model, np.zeros((1, 2), np.float32), batch_size=2, targets=("onnx",), prove=False)
    graph = read_onnx(bundle.artifact("onnx", "step"))
    bundle = bundle.with_artifacts([ArtifactData("onnx", "step", write_onnx(kinked(graph, at_zero=0.0)))])
    golden = {**bundle.golden(), "x": np.zeros((2, 2), np.float32)}
    at_kink = with_batch(bundle, golden)
    other = at_kink.with_artifacts([ArtifactData("onnx", "step", write_onnx(kinked(graph, at_zero=1.0)))])
    only(monkeypatch, Engine("onnxruntime", "onnx"))

    proof = examine({GOLDEN: other}, silent)

    assert [f.kind for f in proof.kinks] == ["step"]
    assert not any(f.blocks for f in proof.findings)


def kinked(graph: Graph, at_zero: float) -> Graph:
    """The step with 1 added to the loss where no element of x is 0, and `at_zero` where one is."""
    constants = {
        **graph.constants,
        "kink_zero": np.zeros((), np.float32),
        "kink_axes": np.array([0, 1], np.int64),
        "kink_at": np.float32(at_zero).reshape(()),
        "kink_off": np.ones((), np.float32),
    }
    nodes = [
        replace(n, outputs=tuple("loss_before" if name == "loss" else name for name in n.outputs))
        for n in graph
    ]
    nodes += [
        Node("Abs", ("x",), ("kink_abs",)),
        Node("ReduceMin", ("kink_abs", "kink_axes"), ("kink_least",), {"keepdims": 0}),
        Node("Equal", ("kink_least", "kink_zero"), ("kink_is",)),
        Node("Where", ("kink_is", "kink_at", "kink_off"), ("kink_add",)),
        Node("Add", ("loss_before", "kink_add"), ("loss",)),
    ]
    return replace(graph, nodes=tuple(nodes), constants=constants)


def with_batch(bundle: Bundle, golden: dict[str, np.ndarray]) -> Bundle:
    return sketched(bundle.with_proof({}, golden))


def test_a_golden_batch_on_a_kink_is_drawn_again() -> None:
    """Rounding matters on the first draw only, where the inputs of a ReLU are as good as 0."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    bundle = edgefl.convert(model, np.zeros((1, 3), np.float32), batch_size=8, targets=("onnx",), prove=False)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    weight = bundle.parameters()["0.weight"].astype(np.float64)
    first = (x[:, None] == draw_golden(bundle.manifest, {"x": x})["x"]).all(-1).any(1)
    # In the plane of the first unit's kink, up to float32's last digit.
    x[first] -= ((x[first] @ weight[0]) / (weight[0] @ weight[0]))[:, None] * weight[0]

    made, goldens = Goldens({"x": x}).smooth(bundle)

    assert goldens.seed > 0
    assert not np.array_equal(made.golden()["x"], draw_golden(bundle.manifest, {"x": x})["x"])


def test_an_engines_process_is_kept_for_the_next_conversion(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    examine({GOLDEN: bundle}, silent)
    monkeypatch.setattr(engines.subprocess, "Popen", lambda *_, **__: pytest.fail("started again"))

    examine({GOLDEN: bundle}, silent)
