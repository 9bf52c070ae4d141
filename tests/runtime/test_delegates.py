# SPDX-License-Identifier: Apache-2.0
"""Delegates that misbehave in every way there is: training goes on, and the verdict says which and why.

The library is built from delegate.c; how it behaves is an option.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.bundle import ArtifactData, Bundle
from edgefl.errors import BackendFailure, BackendUnavailable, OptionError
from edgefl.runtime import Trainer, open_backend
from edgefl.runtime.delegates import Choice, Placement, Verdict, verdicts
from edgefl.runtime.delegates import backend as judging
from edgefl.runtime.delegates.isolated import try_isolated
from edgefl.runtime.delegates.registry import EXTRA, LIMIT, known
from edgefl.runtime.delegates.trial import open_choice, try_choice
from tests.fixtures import minimal

pytestmark = pytest.mark.device
SOURCE = Path(__file__).with_name("delegate.c")
FIXTURES = Path(__file__).parents[1] / "fixtures"
HUNG_AFTER_S = "5"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test makes its own trials."""
    monkeypatch.setenv("EDGEFL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the misbehaving delegates with: apt-get install gcc")
    try:
        open_choice(Choice("tflite"), 1)
    except BackendUnavailable as exc:
        pytest.skip(str(exc))
    made = tmp_path_factory.mktemp("delegate") / "libmine.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, SOURCE], check=True)
    return str(made)


@pytest.fixture
def detour() -> Bundle:
    """Features by way of 100 products with the identity: hard work for who does not know the answer."""
    return Bundle.open(FIXTURES / "detour.edgefl")


def data(bundle: Bundle, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    x = random.normal(size=(count, *bundle.manifest.inputs[0].shape[1:])).astype(np.float32)
    return x, random.integers(0, 3, count).astype(np.int32)


def trained_on_cpu(bundle: Bundle) -> dict[str, np.ndarray]:
    trainer = Trainer(bundle, backend="tflite", delegate="cpu")
    trainer.fit(*data(bundle))
    return trainer.parameters()


def assert_same(made: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(made[name], value, rtol=1e-4, atol=1e-6)


def verdict_on(placements: tuple[Placement, ...], library: str, graph: str = "step") -> Verdict:
    (found,) = (v for p in placements if p.graph == graph for v in p.tried if v.delegate == library)
    return found


# -- auto


@pytest.mark.parametrize(
    ("mode", "state", "reason"),
    [
        ("refuse", "refused", "no such device"),
        ("refuse-graph", "refused", "refuses artifacts/tflite/step"),
        ("fail-run", "refused", "failed to invoke"),
        ("garbage", "wrong", "is off by"),
        ("crash", "crashed", "SIGSEGV ended its process while loading"),
        ("crash-run", "crashed", "SIGSEGV ended its process while running the graph"),
        ("hang", "hung", "no end while"),
        ("hang-run", "hung", "no end while"),
        ("slow", "slower", "the CPU"),
        ("idle", "idle", "takes none of the 34 operators"),
    ],
)
def test_training_goes_on_past_a_delegate_that(
    mode: str, state: str, reason: str, library: str, mlp: Bundle, monkeypatch, caplog
) -> None:
    monkeypatch.setenv(EXTRA, f"{library};mode={mode}")
    if state == "hung":
        monkeypatch.setenv(LIMIT, HUNG_AFTER_S)
    caplog.set_level(logging.INFO, "edgefl.delegates")
    trainer = Trainer(mlp, backend="tflite")

    report = trainer.fit(*data(mlp))

    found = verdict_on(report.placements, library)
    assert found.state == state
    assert reason in found.reason
    assert library not in [p.delegate for p in report.placements]
    assert any(library in line and state in line for line in caplog.messages)
    assert_same(trainer.parameters(), trained_on_cpu(mlp))


def test_a_delegate_that_is_right_and_faster_runs_what_it_takes(
    library: str, detour: Bundle, monkeypatch
) -> None:
    monkeypatch.setenv(EXTRA, f"{library};mode=copy")
    trainer = Trainer(detour, backend="tflite")

    report = trainer.fit(*data(detour))

    features, step = sorted(report.placements, key=lambda p: p.graph)
    assert features.delegate == library
    assert (features.operators, features.taken, features.fell_back, features.partitions) == (102, 100, 2, 1)
    assert features.speedup is not None and features.speedup > 1
    assert step.delegate != library
    assert_same(trainer.parameters(), trained_on_cpu(detour))


def test_the_cpu_takes_over_where_a_trusted_delegate_fails_in_use(
    library: str, detour: Bundle, monkeypatch
) -> None:
    monkeypatch.setenv(EXTRA, f"{library};mode=fail-later")
    program = open_backend(detour, "tflite").load(detour, "features")
    x = detour.golden()["x"]
    before = program({"x": x})["h"].copy()
    assert program.placement.delegate == library  # type: ignore[attr-defined]

    monkeypatch.setenv("DELEGATE_FAILS", "1")
    made = program({"x": x})

    np.testing.assert_allclose(made["h"], before, rtol=1e-5, atol=1e-6)
    placement: Placement = program.placement  # type: ignore[attr-defined]
    assert placement.delegate == "cpu"
    assert "failed in use" in verdict_on((placement,), library, "features").reason


def test_wrong_feeds_are_not_the_delegates_fault(library: str, detour: Bundle, monkeypatch) -> None:
    monkeypatch.setenv(EXTRA, f"{library};mode=copy")
    program = open_backend(detour, "tflite").load(detour, "features")

    with pytest.raises(BackendFailure):
        program({})
    assert program.placement.delegate == library  # type: ignore[attr-defined]


def test_a_verdict_is_kept_for_the_next_start(library: str, mlp: Bundle, monkeypatch) -> None:
    monkeypatch.setenv(EXTRA, f"{library};mode=crash")
    first = Trainer(mlp, backend="tflite").fit(*data(mlp))
    monkeypatch.setattr(judging, "try_isolated", lambda *_: pytest.fail("tried again"))

    again = Trainer(mlp, backend="tflite").fit(*data(mlp))

    assert verdict_on(again.placements, library) == verdict_on(first.placements, library)


def test_a_verdict_holds_for_one_library_graph_and_version(library: str, mlp: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "libother.so"
    shutil.copy(library, other)
    choice = Choice("tflite", str(other), str(other))
    verdict = Verdict(choice.name, "step", "wrong", "was wrong")
    verdicts.keep(verdict, mlp, choice, 1, "litert 1")

    assert verdicts.recall(mlp, "step", choice, 1, "litert 1") == verdict
    assert verdicts.recall(mlp, "infer", choice, 1, "litert 1") is None
    assert verdicts.recall(mlp, "step", choice, 2, "litert 1") is None
    assert verdicts.recall(mlp, "step", choice, 1, "litert 2") is None
    other.write_bytes(other.read_bytes() + b"update")
    assert verdicts.recall(mlp, "step", choice, 1, "litert 1") is None


@pytest.mark.parametrize(
    ("state", "hours", "kept"), [("refused", 2, False), ("crashed", 2, True), ("wrong", 999, True)]
)
def test_what_time_may_mend_is_tried_again(
    state: Any, hours: float, kept: bool, mlp: Bundle, monkeypatch
) -> None:
    choice = Choice("tflite", "edgetpu", "/usr/lib/libedgetpu.so.1")
    verdicts.keep(Verdict("edgetpu", "step", state, "no device"), mlp, choice, 1, "v")
    now = time.time() + 3600 * hours
    monkeypatch.setattr(verdicts.time, "time", lambda: now)

    assert (verdicts.recall(mlp, "step", choice, 1, "v") is not None) is kept


def test_a_damaged_verdict_is_none(mlp: Bundle, tmp_path: Path) -> None:
    choice = Choice("tflite", "xnnpack")
    verdicts.keep(Verdict("xnnpack", "step", "right", ""), mlp, choice, 1, "v")
    (file,) = (tmp_path / "cache" / "verdicts").iterdir()

    for damage in (b"", b"[]", b'{"at": 1}', file.read_bytes()[:-9], b'{"at": "x", "delegate": 3}'):
        file.write_bytes(damage)
        assert verdicts.recall(mlp, "step", choice, 1, "v") is None


# -- named


@pytest.mark.parametrize(
    ("mode", "error", "reason"),
    [
        ("refuse", BackendUnavailable, "(?s)cannot be loaded: .*no such device"),
        ("crash", BackendUnavailable, "cannot be loaded: it crashed: SIGSEGV"),
        ("garbage", BackendFailure, "cannot run step of 'mlp': it gives wrong results"),
        ("crash-run", BackendFailure, "cannot run step of 'mlp': it crashed: SIGSEGV"),
        ("idle", BackendFailure, "it stays idle: takes none of the 34 operators"),
    ],
)
def test_a_named_delegate_that_fails_is_an_error(
    mode: str, error: type[Exception], reason: str, library: str, mlp: Bundle
) -> None:
    with pytest.raises(error, match=reason):
        Trainer(mlp, backend="tflite", delegate=f"{library};mode={mode}").fit(*data(mlp))


def test_a_named_delegate_need_not_be_fast(library: str, head: Bundle) -> None:
    trainer = Trainer(head, delegate=f"{library};mode=slow")

    report = trainer.fit(*data(head, 8))

    places = {p.graph: p for p in report.placements}
    assert places["features"].delegate == library
    assert (places["features"].taken, places["features"].fell_back) == (1, 1)
    assert places["step"].delegate == "cpu"
    assert verdict_on(report.placements, library).state == "idle"


def test_a_named_library_makes_the_engine_tflite(library: str, head: Bundle) -> None:
    assert open_backend(head, delegate=f"{library};mode=slow").name == "tflite"
    with pytest.raises(OptionError, match="works with backend tflite, not with numpy"):
        open_backend(head, "numpy", library)


def test_a_lost_delegate_leaves_no_process_behind(library: str, mlp: Bundle) -> None:
    choice = Choice("tflite", library, library, options=(("mode", "hang"),), limit_s=float(HUNG_AFTER_S))

    found = try_isolated(mlp, "step", choice, 1)

    assert found.state == "hung"
    children = [pid for pid, parent in processes() if parent == os.getpid()]
    assert not [pid for pid in children if b"delegates.probe" in command_of(pid)]


def processes() -> list[tuple[int, int]]:
    """Every process and its parent, where the system shows them as files."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found.append((int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])))
    return found


def command_of(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


# -- where no process can be started


def test_without_processes_auto_takes_only_what_is_built_in(library: str, mlp: Bundle, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setenv(EXTRA, f"{library};mode=crash")

    report = Trainer(mlp, backend="tflite").fit(*data(mlp))

    assert verdict_on(report.placements, library).state == "untried"


def test_without_processes_a_named_delegate_is_tried_here(library: str, head: Bundle, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "")

    program = open_backend(head, "tflite", f"{library};mode=slow").load(head, "features")

    assert program.placement.delegate == library  # type: ignore[attr-defined]


# -- what is built in


@pytest.mark.parametrize("kind", ["step", "infer"])
def test_xnnpack_gives_the_results_of_the_engines_own_kernels(kind: str, mlp: Bundle) -> None:
    pytest.importorskip("ai_edge_litert")

    found = try_choice(mlp, kind, Choice("tflite", "xnnpack"), 1)

    assert found.state in ("right", "slower")
    assert found.error <= 1
    assert found.taken and found.operators and 0 < found.taken <= found.operators


def test_xnnpack_in_the_older_engine(mlp: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tflite_runtime", exc_type=ImportError)
    script = (
        "import sys; sys.modules['ai_edge_litert'] = sys.modules['ai_edge_litert.interpreter'] = None\n"
        "from edgefl.bundle import Bundle\n"
        "from edgefl.runtime.delegates import Choice\n"
        "from edgefl.runtime.delegates.trial import open_choice, try_choice\n"
        "bundle = Bundle.open(sys.argv[1])\n"
        "made = try_choice(bundle, 'step', Choice('tflite', 'xnnpack'), 1)\n"
        "print(open_choice(Choice('tflite'), 1).version.split()[0], made.error <= 1, made.taken > 0)\n"
    )
    mlp.save(tmp_path / "m.edgefl")
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "m.edgefl")], capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == ["tflite_runtime", "True", "True"]


def test_the_cpu_is_named_when_nothing_else_runs(backend: str, mlp: Bundle) -> None:
    report = Trainer(mlp, backend=backend, delegate="cpu").fit(*data(mlp))

    assert [(p.graph, p.delegate, p.tried) for p in report.placements] == [("step", "cpu", ())]


def test_onnxruntime_counts_operators_by_provider(mlp: Bundle) -> None:
    pytest.importorskip("onnxruntime")

    found = try_choice(mlp, "step", Choice("onnx"), 1)

    assert (found.state, found.taken, found.partitions) == ("idle", 0, 0)
    assert found.operators is not None and found.operators > 10


def test_a_provider_that_is_not_built_in(mlp: Bundle) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "QNNExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has the QNN provider")

    with pytest.raises(BackendUnavailable, match=r"built without QNN.*: install onnxruntime-qnn"):
        open_backend(mlp, "onnx", "qnn")


def test_a_provider_that_onnxruntime_drops_without_a_word_is_refused(mlp: Bundle) -> None:
    ort = pytest.importorskip("onnxruntime")
    row = next(k for k in known("onnx") if k.provider not in ort.get_available_providers())

    found = try_isolated(mlp, "step", row.choice(), 1)

    assert found.state == "refused"
    assert row.provider in found.reason


def test_a_provider_without_kernels_for_a_graph_is_idle(mlp: Bundle) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this onnxruntime has no AzureExecutionProvider, which runs only calls to servers")

    found = try_isolated(mlp, "step", Choice("onnx", "azure", provider="AzureExecutionProvider"), 1)

    assert (found.state, found.taken) == ("idle", 0)


@pytest.mark.parametrize("name", ["cuda", "tensorrt", "xnnpack", "openvino", "coreml"])
def test_a_real_provider_gives_the_cpus_results(name: str, mlp: Bundle) -> None:
    ort = pytest.importorskip("onnxruntime")
    (row,) = (k for k in known("onnx") if k.name == name)
    if row.provider not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {row.provider}")

    found = try_isolated(mlp, "step", row.choice(), 1)

    assert found.state in ("right", "slower", "idle", "refused"), found


def test_features_in_int8_that_an_engine_refuses_are_made_in_float(head: Bundle, caplog) -> None:
    pytest.importorskip("ai_edge_litert")
    broken = head.with_artifacts([ArtifactData("tflite", "features-int8", minimal.tflite())])
    plain, trainer = (Trainer(b, backend="tflite") for b in (head, broken))

    plain.fit(*data(head))
    report = trainer.fit(*data(head))

    assert "features is used in place of features-int8" in caplog.text
    assert {p.graph for p in report.placements} == {"features", "step"}
    assert_same(trainer.parameters(), plain.parameters())
