# SPDX-License-Identifier: Apache-2.0
"""Rounds of one server with two Android phones, the iPhone's seam and a Raspberry Pi, all enrolled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from edgefl.bundle import Bundle
from edgefl.data import Examples, load_examples
from edgefl.parameters import Arrays
from edgefl.simulation import Plan, simulate
from edgefl.wire import Training
from tests.android.conftest import compiled
from tests.federation.mixed import DEVICE_PYTHON, ROOT, environment
from tests.host.conftest import servers
from tests.host.doubles import fill
from tests.ios.swift import built, own_tests
from tests.server.conftest import MODEL
from tests.server.test_identity import Place

pytest.importorskip("jpype")
pytest.importorskip("fastapi")

ROUNDS = 2
TRAINING = {"epochs": 2, "lr": 0.1, "seed": 5, "mode": "float32"}
EXAMPLES = {"litert": 32, "onnxruntime": 24, "iphone": 40, "pi": 33}
"""How many each device has; the odd number leaves a last batch that is not full."""
SEEDS = {"litert": 1, "onnxruntime": 2, "iphone": 5, "pi": 4}
"""Of the examples; the iPhone's tests fill their own folder, with the seed that `fill` has by itself."""
ENGINES = {"litert": "litert", "onnxruntime": "onnxruntime-android", "iphone": "host-numpy", "pi": "tflite"}
"""How they name themselves: none of them stands in for another."""
MOVED = 2.0**-20
"""Relative. Who sums n numbers in an order of his own gives the exact sum of numbers moved by up to n
roundings of 2^-24 (Higham, Accuracy and Stability, 4.2). No sum in this model has more than 16 numbers."""


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that knows its devices and waits for all four."""
    options = {"goal": 4, "minimum": 4, "surplus": 0.0, "rounds": ROUNDS, "enrolled": True}
    for start in servers(tmp_path_factory):
        yield Place(start(training=TRAINING, **options))


def test_phones_and_a_pi_train_what_numpy_trains_alone(place: Place, tmp_path: Path) -> None:
    for name, count in EXAMPLES.items():
        fill(tmp_path / name, SEEDS[name], count)
    examples = {name: load_examples(tmp_path / name / "examples.npz") for name in EXAMPLES}
    classes = compiled(tmp_path)
    with built():
        said = run_all(
            {
                "litert": android(classes, tmp_path / "litert", "LiteRtEngine", place),
                "onnxruntime": android(classes, tmp_path / "onnxruntime", "OrtEngine", place),
                "iphone": iphone(place),
                "pi": pi(tmp_path / "pi", place),
            }
        )

    for name in ("litert", "onnxruntime"):
        answer = json.loads(said[name].splitlines()[-1])
        assert answer["finished"] and [row["accepted"] for row in answer["rounds"]] == [True] * ROUNDS
    for number in range(1, ROUNDS + 1):
        rows = {row.examples: row for row in place.admin_remote().participants(number)}
        assert len(rows) == len(EXAMPLES)
        for name, count in EXAMPLES.items():
            assert rows[count].engine.startswith(f"{ENGINES[name]} ") and rows[count].state == "accepted"
    first = Bundle.open(MODEL)
    made = place.admin_remote().parameters(ROUNDS, first.schema())
    alone = numpy_alone(first, examples)
    allowed = apart(numpy_alone(*moved(first, examples)), alone)
    assert apart(made, alone) <= allowed
    assert apart(first.parameters(), alone) > 1000 * allowed, "nothing was learned"


def android(classes: Path, folder: Path, engine: str, place: Place) -> list[str]:
    settings = json.dumps({"token": place.token_for()})
    module = [sys.executable, "-W", "ignore", "-m", "tests.android.phone"]
    return [*module, str(classes), str(folder), place.server.url, engine, settings]


def iphone(place: Place) -> list[str]:
    settings = json.dumps({"token": place.token_for()})
    return own_tests(
        "--filter", "testARoundWithAServer", EDGEFL_SERVER=place.server.url, EDGEFL_SETTINGS=settings
    )


def pi(folder: Path, place: Place) -> list[str]:
    options = {
        "--server": place.server.url,
        "--data": str(folder / "examples.npz"),
        "--workdir": str(folder),
        "--token": place.token_for(),
        "--backend": "tflite",
    }
    return [DEVICE_PYTHON, "-m", "edgefl", "device", *(word for option in options.items() for word in option)]


def run_all(commands: Mapping[str, list[str]]) -> dict[str, str]:
    """Every device at once; what each wrote, once all have come to a good end."""
    running = {
        name: subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, command in commands.items()
    }
    try:
        said = {name: process.communicate(timeout=300)[0] for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    for name, process in running.items():
        assert process.returncode == 0, f"{name}: {said[name]}"
    return said


def numpy_alone(bundle: Bundle, examples: Mapping[str, Examples]) -> Arrays:
    """What the same rounds make with every device on NumPy, in this process."""
    plan = Plan(rounds=ROUNDS, training=Training.of(**TRAINING), downlink=0.0)
    return simulate(bundle, examples, plan, backend="numpy").bundle.parameters()


def moved(bundle: Bundle, examples: Mapping[str, Examples]) -> tuple[Bundle, dict[str, Examples]]:
    """The same with each number of parameters and inputs moved up or down."""
    rng = np.random.default_rng(0)

    def move(values: np.ndarray) -> np.ndarray:
        return (values * (1 + MOVED * rng.choice([-1.0, 1.0], values.shape))).astype(np.float32)

    parameters = {name: move(value) for name, value in bundle.parameters().items()}
    return bundle.with_parameters(parameters, bundle.manifest.model_version), {
        name: Examples(move(one.x), one.y) for name, one in examples.items()
    }


def apart(a: Arrays, b: Arrays) -> float:
    """The largest distance of a parameter, over its norm."""
    return max(float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name])) for name in b)
