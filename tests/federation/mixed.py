# SPDX-License-Identifier: Apache-2.0
"""One federation, a device on each engine: `python -m tests.federation.mixed` prints what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import edgefl
from edgefl.bundle import Bundle
from edgefl.data import Examples
from edgefl.runtime.transport import HttpTransport
from edgefl.simulation import Plan, simulate
from edgefl.tensorfile import read_tensors
from edgefl.wire import Status, Training

ROOT = Path(__file__).resolve().parents[2]
DEVICE_PYTHON = os.environ.get("EDGEFL_DEVICE_PYTHON", sys.executable)
ROUNDS, BATCH, EXAMPLES = 3, 8, 24
TRAINING = Training.of(epochs=2, lr=0.1, seed=5, mode="float32")
NEEDS = {
    "onnxruntime": "onnxruntime",
    "litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "ort-training": "onnxruntime.training",
    "numpy": "numpy",
    "openvino": "openvino",
    "coreml": "coremltools",
    "coreml-updatable": "coremltools",
}
"""Every engine, with the package it needs."""

START = """
import json, sys
from edgefl.server_stub.serve import run_server
from edgefl.server_stub.settings import Settings
from edgefl.wire import Training
options = json.loads(sys.argv[1])
settings = Settings(training=Training.of(**options["training"]), **options["settings"])
run_server(settings, port_file=options["port_file"])
"""


@dataclass(frozen=True)
class Mixed:
    """What came of a federation.

    Attributes:
        devices: for each engine, its own name for itself and its rounds, as its device reported them.
        parameters: of the last version.
        alone: of the last version of the same federation with every device on NumPy, in one process.
        losses: of that federation's rounds, the mean over the devices.
    """

    devices: dict[str, dict[str, Any]]
    parameters: dict[str, Any]
    alone: dict[str, Any]
    losses: list[float]

    def distance(self) -> float:
        """Between the two models: the largest relative difference of a parameter, by its norm."""
        return max(
            float(np.linalg.norm(self.parameters[n] - v) / max(1e-12, float(np.linalg.norm(v))))
            for n, v in self.alone.items()
        )


def engines_here() -> list[str]:
    return [engine for engine, module in NEEDS.items() if _present(module)]


def _present(module: str) -> bool:
    top, _, _rest = module.partition(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return False
    inner = Path(next(iter(spec.submodule_search_locations))) / Path(*module.split(".")[1:])
    return inner.exists()


def make_bundle() -> Bundle:
    """A small convolutional classifier with an artifact for every engine."""
    import torch

    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    targets = ["onnx", "tflite", "coreml", "ort-training"]
    return edgefl.convert(
        model, np.zeros((1, 1, 8, 8), np.float32), batch_size=BATCH, targets=targets, name="mixed"
    )


def make_examples(engines: Sequence[str]) -> dict[str, Examples]:
    """Three kinds of images, each device with its own; every device has a different mix of them."""
    found = {}
    for number, engine in enumerate(engines):
        rng = np.random.default_rng(number)
        y = rng.choice(3, EXAMPLES, p=np.roll([0.6, 0.3, 0.1], number)).astype(np.int32)
        x = rng.normal(size=(EXAMPLES, 1, 8, 8)).astype(np.float32)
        x[np.arange(EXAMPLES), 0, 2 * y, :] += 2.0
        found[engine] = Examples(x, y)
    return found


def run_mixed(engines: Sequence[str], folder: Path) -> Mixed:
    """Train by a server process and device processes over HTTP, and once more alone."""
    bundle, examples = make_bundle(), make_examples(engines)
    bundle.save(folder / "mixed.edgefl")
    for engine, data in examples.items():
        np.savez(folder / f"{engine}.npz", x=data.x, y=data.y)
    server = _serve(folder, len(engines))
    try:
        url = f"http://127.0.0.1:{_port(folder, server)}"
        devices = _devices(engines, url, folder)
        transport = HttpTransport(url)
        status = Status.from_bytes(transport.request("GET", "/v1/status", limit=1 << 20).body)
        parameters = read_tensors(
            transport.request("GET", f"/v1/parameters/{status.version}", limit=1 << 24).body
        )
        transport.close()
    finally:
        server.kill()
        server.wait()
    plan = Plan(rounds=ROUNDS, training=TRAINING, downlink=0.0)
    alone = simulate(bundle, examples, plan, backend="numpy")
    losses = [row.loss for row in alone.rounds if row.loss is not None]
    return Mixed(devices, parameters, alone.bundle.parameters(), losses)


def _serve(folder: Path, goal: int) -> subprocess.Popen[bytes]:
    settings = {
        "bundle": str(folder / "mixed.edgefl"),
        "database": str(folder / "rounds.db"),
        "rounds": ROUNDS,
        "goal": goal,
        "minimum": goal,
        "downlink": 0.0,
        "long_poll_s": 0.2,
        "retry_after_s": 0.05,
    }
    training = {**TRAINING.fit.to_json(), **TRAINING.coding.to_json()}
    options = {"settings": settings, "training": training, "port_file": str(folder / "port")}
    return subprocess.Popen([sys.executable, "-c", START, json.dumps(options)], cwd=ROOT, env=environment())


def _port(folder: Path, server: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 120
    while not (folder / "port").exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the server did not start")
        time.sleep(0.05)
    return int((folder / "port").read_text())


def _devices(engines: Sequence[str], url: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Device processes: the two TFLite engines cannot share one, the device environment has newer ones."""
    stock = [e for e in engines if e in ("onnxruntime", "litert", "openvino")]
    older = [e for e in engines if e == "tflite-runtime"]
    rest = [e for e in engines if e not in (*stock, *older)]
    groups = [(DEVICE_PYTHON, stock), (sys.executable, rest), (sys.executable, older)]
    processes = [
        subprocess.Popen(
            [python, "-W", "ignore", "-m", "tests.federation.engines", ",".join(names), url, str(folder)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
        )
        for python, names in groups
        if names
    ]
    found: dict[str, dict[str, Any]] = {}
    for process in processes:
        out, _ = process.communicate(timeout=600)
        found.update(json.loads(out.splitlines()[-1]))
    return {engine: found[engine] for engine in engines}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def table(mixed: Mixed) -> str:
    """A row per device: the engine's name for itself, and its mean training loss in each round."""
    lines = ["| device on | engine | " + " | ".join(f"loss {i + 1}" for i in range(ROUNDS)) + " |"]
    lines.append("|---|---|" + "---|" * ROUNDS)
    for engine, report in mixed.devices.items():
        losses = " | ".join(f"{row['loss']:.4f}" for row in report["rounds"])
        lines.append(f"| {engine} | {report['engine']} | {losses} |")
    lines.append(f"\nfrom the model that NumPy trains alone: {mixed.distance():.1e} apart (relative)")
    return "\n".join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(table(run_mixed(engines_here(), Path(folder))))


if __name__ == "__main__":
    main()
