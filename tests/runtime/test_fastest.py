# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.errors import BackendFailure
from edgefl.runtime import Trainer, open_backend
from edgefl.runtime.backends import fastest
from edgefl.runtime.backends.base import Engine, Placed
from edgefl.runtime.backends.fastest import speeds
from edgefl.runtime.backends.proving import proving

pytestmark = pytest.mark.device

Values = dict[str, np.ndarray]


class Slowed(Engine):
    """The NumPy engine under another name, slower or wrong."""

    target, version = "onnx", "1"

    def __init__(self, name: str, seconds: float, change: Callable[[Values], Values]) -> None:
        self.name, self._seconds, self._change = name, seconds, change

    def load(self, bundle: Bundle, kind: str) -> Any:
        program = open_backend(bundle, "numpy").load(bundle, kind)

        def run(feeds: Mapping[str, np.ndarray]) -> Values:
            time.sleep(self._seconds)
            return self._change(program(feeds))

        return Placed(run, program.placement)


class Engines:
    """Rivals by name; counts how often each is opened."""

    def __init__(self, **made: Any) -> None:
        self.made, self.opened = made, list[str]()

    def __call__(self, name: str) -> Any:
        self.opened.append(name)
        if isinstance(self.made[name], Exception):
            raise self.made[name]
        return proving(self.made[name])


def same(values: Values) -> Values:
    return values


def doubled(values: Values) -> Values:
    return {name: 2 * value for name, value in values.items()}


@pytest.fixture(autouse=True)
def both_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fastest, "_version", lambda name: f"{name} 1")
    monkeypatch.setattr(fastest, "_BUDGET_S", 0.01)
    monkeypatch.setenv("EDGEFL_CACHE", str(tmp_path / "cache"))


def test_the_faster_engine_comes_first(mlp: Bundle) -> None:
    engines = Engines(onnx=Slowed("onnx", 0.02, same), openvino=Slowed("openvino", 0.0, same))

    found = speeds(mlp, 1, engines)

    assert [speed.engine for speed in found] == ["openvino", "onnx"]
    assert found[0].ms < found[1].ms


def test_what_was_measured_is_kept(mlp: Bundle) -> None:
    engines = Engines(onnx=Slowed("onnx", 0.0, same), openvino=BackendFailure("refused"))
    first = speeds(mlp, 1, engines)

    assert speeds(mlp, 1, engines) == first
    assert engines.opened == ["onnx", "openvino"]


def test_another_number_of_threads_is_measured_anew(mlp: Bundle) -> None:
    engines = Engines(onnx=Slowed("onnx", 0.0, same), openvino=Slowed("openvino", 0.0, same))
    speeds(mlp, 1, engines)
    speeds(mlp, 2, engines)

    assert len(engines.opened) == 4


def test_an_engine_with_other_gradients_is_passed_over(mlp: Bundle) -> None:
    engines = Engines(onnx=Slowed("onnx", 0.01, same), openvino=Slowed("openvino", 0.0, doubled))

    last = speeds(mlp, 1, engines)[-1]

    assert last.engine == "openvino"
    assert re.search(r"computes step of 'mlp' wrongly: the .* is off by 1(\.\d)? times its norm", last.reason)


def test_an_engine_that_refuses_is_passed_over(mlp: Bundle) -> None:
    engines = Engines(onnx=Slowed("onnx", 0.0, same), openvino=BackendFailure("no such instruction"))

    assert str(speeds(mlp, 1, engines)[-1]) == "openvino: no such instruction"


def test_nothing_is_measured_where_there_is_one_engine(mlp: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "_version", lambda name: "1" if name == "onnx" else "")

    assert speeds(mlp, 1, Engines()) == ()


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    mlp: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEFL_CACHE", str(tmp_path / "file" / "below"))
    engines = Engines(onnx=Slowed("onnx", 0.0, same), openvino=Slowed("openvino", 0.0, same))

    assert len(speeds(mlp, 1, engines)) == 2


def test_a_damaged_file_is_measured_anew(mlp: Bundle, tmp_path: Path) -> None:
    engines = Engines(onnx=Slowed("onnx", 0.0, same), openvino=Slowed("openvino", 0.0, same))
    speeds(mlp, 1, engines)
    (kept,) = (tmp_path / "cache" / "engines").iterdir()
    kept.write_text("[1, 2]")

    assert len(speeds(mlp, 1, engines)) == 2


def test_the_verdict_is_in_the_report_of_training(mlp: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    trainer = Trainer(mlp)
    golden = mlp.golden()

    report = trainer.fit(golden["x"], golden["y"])

    assert {speed.engine for speed in report.speeds} == {"onnx", "openvino"}
    assert report.backend == report.speeds[0].engine
