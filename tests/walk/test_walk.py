# SPDX-License-Identifier: Apache-2.0
"""The whole way with nothing but commands: a model, a simulation, a federation of processes, files in an app.

Every step takes what the one before wrote. Only the expected output of the last files comes from Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefl import Bundle, Trainer
from tests.cli.commands import in_own_process
from tests.walk import models

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Walk:
    """A model and what is particular about it.

    Attributes:
        factory: its name in models.py.
        examples: makes examples from a seed and a count.
        options: of `convert`.
        lr: that it learns with.
        merged: its adapters are folded in before it is deployed.
    """

    factory: str
    examples: Callable[[int, int], dict[str, np.ndarray]]
    options: tuple[str, ...] = ()
    lr: float = 0.1
    merged: bool = False


WALKS = {
    "classifier": Walk("classifier", models.images, lr=0.3),
    "bert": Walk(
        "bert",
        lambda seed, count: models.sentences(seed, count, "int64"),
        ("--trainable", "lora:rank=4,*classifier*"),
        lr=1.0,
        merged=True,
    ),
    "gru": Walk("gru", lambda seed, count: models.sentences(seed, count, "int32"), lr=0.5),
}


@pytest.mark.parametrize("name", WALKS)
def test_from_a_model_to_files_in_an_app(name: str, tmp_path: Path) -> None:
    walk = WALKS[name]
    shutil.copy(HERE / "models.py", tmp_path / "mine.py")
    for file, seed, count in (("a", 1, 64), ("b", 2, 64), ("all", 3, 128), ("test", 4, 60)):
        np.savez(tmp_path / f"{file}.npz", **walk.examples(seed, count))

    def edgefl(*arguments: object) -> Any:
        return in_own_process((*arguments, "--json"), tmp_path).json()

    training = ("--lr", walk.lr, "--epochs", 2, "--density", 0.2)
    edgefl("convert", f"mine.py:{walk.factory}", *walk.options, "-o", "model.edgefl")
    before = edgefl("evaluate", "model.edgefl", "-d", "test.npz")

    devices = ("--devices", 4, "--rounds", 4)
    edgefl("simulate", "model.edgefl", "-d", "all.npz", *devices, *training, "-o", "simulated.edgefl")
    simulated = edgefl("evaluate", "simulated.edgefl", "-d", "test.npz")
    assert simulated["loss"] < before["loss"]

    with serving(tmp_path, "--rounds", 6, "--goal", 2, *training) as url:
        started = [device(tmp_path, url, who) for who in ("a", "b")]
        ended = [process.wait(120) for process in started]
        edgefl("pull", url, "-o", "final.edgefl")
    after = edgefl("evaluate", "final.edgefl", "-d", "test.npz")
    assert ended == [0, 0]
    assert after["loss"] < before["loss"] and after["accuracy"] > before["accuracy"]

    deployed = "final.edgefl"
    if walk.merged:
        edgefl("merge", deployed, "-o", "merged.edgefl")
        deployed = "merged.edgefl"
    edgefl("export", deployed, "--data", "test.npz", "--form", "float32,int8", "-o", "app")
    check_app(tmp_path / "app", walk.examples(4, 60), Bundle.open(tmp_path / "final.edgefl"))


def check_app(app: Path, examples: dict[str, np.ndarray], trained: Bundle) -> None:
    """Stock engines give what the trained bundle gives: float files to rounding, int8 files the classes."""
    expected = Trainer(trained, backend="numpy").predict(examples["x"])
    files = sorted(app.iterdir())
    assert {(f.stem.rpartition("-")[2], f.suffix) for f in files} >= {
        (form, suffix) for form in ("float32", "int8") for suffix in (".onnx", ".tflite")
    }
    for file in files:
        run = on_onnxruntime(file) if file.suffix == ".onnx" else on_litert(file)
        made = np.concatenate([run(examples["x"][i : i + 1]) for i in range(len(expected))])
        if file.stem.endswith("float32"):
            np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-4)
        else:
            assert (made.argmax(1) == expected.argmax(1)).mean() >= 0.9, file.name


def on_onnxruntime(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def on_litert(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=file.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], x.astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(gives["index"]).copy()

    return run


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[str]:
    port = folder / "port"
    server = start(folder, "serve", "model.edgefl", "--port", 0, "--port-file", port, *options)
    try:
        while not port.exists():
            assert server.poll() is None, (folder / "serve.log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{int(port.read_text())}"
    finally:
        server.terminate()
        server.wait(30)


def device(folder: Path, url: str, name: str) -> subprocess.Popen[bytes]:
    return start(folder, "device", "-s", url, "-d", f"{name}.npz", "--workdir", name, "--id", name)


def start(folder: Path, command: str, *arguments: object) -> subprocess.Popen[bytes]:
    with (folder / f"{command}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "edgefl", command, *map(str, arguments)],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
