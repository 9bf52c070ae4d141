# SPDX-License-Identifier: Apache-2.0
"""What users may ask for, what counts as right, and where operators went."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefl.bundle import ArtifactData, Bundle
from edgefl.errors import OptionError
from edgefl.runtime.backends.onnx import _placement as by_provider
from edgefl.runtime.backends.tflite import _placement
from edgefl.runtime.cache import targets_for
from edgefl.runtime.delegates import REGISTRY, Placement, Verdict
from edgefl.runtime.delegates.presence import candidates, find_library
from edgefl.runtime.delegates.registry import ENGINES, Wish, parse_wish
from edgefl.runtime.kinds import features_kinds
from edgefl.sketch import TOLERANCES
from tests.fixtures import minimal

pytestmark = pytest.mark.device


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("auto", Wish("auto")),
        ("cpu", Wish("cpu")),
        ("none", Wish("cpu")),
        ("xnnpack", Wish("xnnpack", (), ("onnx", "tflite"))),
        ("edgetpu", Wish("edgetpu", (), ("tflite",))),
        ("cuda;device_id=1", Wish("cuda", (("device_id", "1"),), ("onnx",))),
        ("./libx.so;a=b=c;d=", Wish("./libx.so", (("a", "b=c"), ("d", "")), ("tflite",))),
        ("libedgetpu.so.1", Wish("libedgetpu.so.1", (), ("tflite",))),
    ],
)
def test_wishes(text: str, wish: Wish) -> None:
    assert parse_wish(text) == wish


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpu3", "allowed auto, cpu, edgetpu"),
        ("", "allowed auto"),
        ("auto;x=1", "takes no options"),
        ("cuda;fast", "'fast' is no key=value"),
        ("cuda;=1", "'=1' is no key=value"),
    ],
)
def test_wishes_that_mean_nothing(text: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        parse_wish(text)


def test_the_registry_is_consistent() -> None:
    keys = [(row.engine, row.name) for row in REGISTRY]

    assert len(set(keys)) == len(keys)
    assert {row.engine for row in REGISTRY} == set(ENGINES)
    for row in REGISTRY:
        assert bool(row.provider) == (row.engine == "onnx")
        assert row.dtype in TOLERANCES
        assert row.advice and row.drives


def test_a_library_is_found_on_the_library_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libedgetpu.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{tmp_path}")

    assert find_library(("libother.so", "libedgetpu.so.1")) == str(tmp_path / "libedgetpu.so.1")
    assert find_library(("libnothing.so",)) == ""


def test_accelerators_for_integers_are_only_offered_int8(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "libedgetpu.so.1").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    assert "edgetpu" in [c.name for c in candidates("tflite", (), "features-int8")]
    assert "edgetpu" not in [c.name for c in candidates("tflite", (), "features")]


def test_providers_come_in_order_of_preference() -> None:
    built_with = ("CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider")

    assert [c.name for c in candidates("onnx", built_with, "step")] == ["tensorrt", "cuda"]


def test_a_named_delegate_decides_what_a_device_downloads() -> None:
    assert targets_for("auto", "edgetpu") == ("tflite",)
    assert targets_for("auto", "cuda") == ("onnx",)
    assert targets_for("auto", "./libmine.so") == ("tflite",)


def test_int8_features_come_first(head: Bundle) -> None:
    both = head.with_artifacts([ArtifactData("tflite", "features-int8", minimal.tflite())])

    assert features_kinds(head.manifest, "tflite") == ("features",)
    assert features_kinds(both.manifest, "tflite") == ("features-int8", "features")
    assert features_kinds(both.manifest, "coreml") == ()


# -- where operators went


def test_operators_are_counted_between_a_delegates_inputs_and_outputs() -> None:
    def node(index: int, op: str, inputs: list[int], outputs: list[int]) -> dict[str, object]:
        return {"index": index, "op_name": op, "inputs": inputs, "outputs": outputs}

    nodes = [
        node(0, "CONV_2D", [0, 10], [1]),
        node(1, "RELU", [1], [2]),
        node(2, "CUSTOM", [2], [3]),
        node(3, "ADD", [3, 1], [4]),
        node(4, "MUL", [4, 4], [5]),
        node(5, "DELEGATE", [0, 10], [1, 2]),
        node(6, "DELEGATE", [3, 1], [5]),
    ]

    found = _placement("step", "npu", nodes)

    assert (found.operators, found.taken, found.fell_back, found.partitions) == (5, 4, 1, 2)


def test_a_placement_says_all_of_it() -> None:
    lost = Verdict("gpu", "step", "wrong", "'loss' is off")

    assert str(Placement("step", "npu", 5, 4, 2, (lost,), 1.83)) == (
        "step on npu: 4 of 5 operators in 2 parts, 1 on cpu, 1.8 x the speed of cpu; "
        "not gpu (wrong: 'loss' is off)"
    )
    assert str(Placement("step")) == "step on cpu"
    assert Placement("step", "npu").fell_back is None


def test_onnxruntimes_profile_is_counted_by_provider() -> None:
    def ran(name: str, provider: str, op: str = "Conv") -> dict[str, object]:
        return {"cat": "Node", "name": name, "args": {"provider": provider, "op_name": op}}

    cpu, gpu = "CPUExecutionProvider", "CUDAExecutionProvider"
    events = [
        {"cat": "Session", "name": "run", "args": {}},
        {"cat": "Node", "name": "a_fence_before", "args": {"op_name": "Conv"}},
        ran("a", gpu),
        ran("b", gpu),
        ran("copy", gpu, "MemcpyToHost"),
        ran("c", cpu),
        ran("d", gpu),
        ran("a", gpu),
    ]

    found = by_provider("step", "cuda", events)

    assert (found.operators, found.taken, found.fell_back, found.partitions) == (4, 3, 1, 2)
