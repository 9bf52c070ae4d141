# SPDX-License-Identifier: Apache-2.0
"""Every engine a device can have; the two forms of Core ML run in the evaluator."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.bundle.archive import unpack
from edgefl.data import Examples
from edgefl.errors import OptionError
from edgefl.options import FitOptions
from edgefl.parameters import Arrays
from edgefl.runtime.backends.base import Array, Engine, Names, Placed, Program, artifact_of
from edgefl.runtime.client import DeviceClient
from edgefl.runtime.delegates import Placement
from edgefl.runtime.learner import Learned, Learner, Stint, TrainerLearner
from edgefl.runtime.patience import Patience
from edgefl.runtime.transport import HttpTransport

PLAIN = {"onnxruntime": "onnx", "openvino": "openvino", "numpy": "numpy", "ort-training": "ort-training"}
LITE = {"litert": "tflite_runtime", "tflite-runtime": "ai_edge_litert"}
"""Engine to the module that is hidden, so that it is the other one that runs."""


class CoreMLBackend(Engine):
    """ML Programs of the bundle in the evaluator, read back from disk."""

    name, target, version = "coreml", "coreml", "evaluator"

    def load(self, bundle: Bundle, kind: str) -> Program:
        names = Names.of(artifact_of(bundle, self.target, kind))
        return Placed(_CoreMLProgram(unpack(bundle.artifact(self.target, kind)), names), Placement(kind))


class _CoreMLProgram:
    def __init__(self, files: Mapping[str, bytes], names: Names) -> None:
        from tests.coreml_evaluator.model import load

        self._folder, self._names = tempfile.TemporaryDirectory(), names
        for name, data in files.items():
            path = Path(self._folder.name) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._model = load(next(Path(self._folder.name).glob("*.mlpackage")))

    def __call__(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        own, inputs = self._names.to_own(feeds), self._model.inputs
        made = self._model(
            {n: np.asarray(own[n], dtype).reshape(shape) for n, (shape, dtype) in inputs.items()}
        )
        return {self._names.to_contract(name): value for name, value in made.items()}


class UpdatableLearner:
    """What an app does with the classic form: an update task from the server's parameters.

    The saved file is given the parameters and trained by the evaluator; the weights it then has are the new.
    """

    engine = "coreml updatable evaluator"

    def __init__(self, bundle: Bundle, examples: Examples) -> None:
        self._bundle, self._data, self.examples = bundle, examples, len(examples)
        self._names = artifact_of(bundle, "coreml", "updatable").inputs
        self._layers = bundle.manifest.report["targets"]["coreml"]["updatable"]["layers"]

    def learn(self, parameters: Arrays, options: FitOptions, stint: Stint) -> Learned:
        from tests.coreml_evaluator.model import train
        from tests.coreml_evaluator.update import write_parameters

        if options.momentum or options.mu:
            raise OptionError("an updatable model has its own momentum, and no FedProx")
        order = np.random.Generator(np.random.PCG64(options.seed))
        feeds = {"x": self._data.x, "y": np.asarray(self._data.y, np.int32).reshape(-1, 1)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "updatable.mlmodel"
            path.write_bytes(self._bundle.artifact("coreml", "updatable"))
            write_parameters(path, {row["layer"]: self._values(row, parameters) for row in self._layers})
            updated = train(
                path,
                {self._names.get(name, name): value for name, value in feeds.items()},
                epochs=options.epochs,
                learning_rate=options.lr,
                batch=self._bundle.manifest.batch_size,
                orders=[order.permutation(self.examples) for _ in range(options.epochs)],
            )
        new = {
            n: v for row in self._layers for n, v in self._back(row, updated.parameters[row["layer"]]).items()
        }
        schema = self._bundle.schema()
        base = schema.flatten(parameters)
        return Learned(schema.flatten(new) - base, float(np.mean(updated.losses)))

    def _values(self, row: Mapping[str, Any], parameters: Arrays) -> dict[str, Array]:
        weight = parameters[row["weight"]]
        values = {"weight": weight.T if row["transposed"] else weight}
        return {**values, "bias": parameters[row["bias"]]} if row["bias"] else values

    def _back(self, row: Mapping[str, Any], held: Mapping[str, Array]) -> dict[str, Array]:
        weight = held["weight"].T if row["transposed"] else held["weight"]
        new = {row["weight"]: weight, row["bias"]: held.get("bias")}
        return {n: np.asarray(v).reshape(self._shape(n)) for n, v in new.items() if n}

    def _shape(self, name: str) -> tuple[int, ...]:
        return next(p.shape for p in self._bundle.manifest.parameters if p.name == name)


def learner(engine: str, bundle: Bundle, examples: Examples) -> Learner:
    """What trains on a device with one of the engines."""
    if engine == "coreml-updatable":
        return UpdatableLearner(bundle, examples)
    backend = CoreMLBackend() if engine == "coreml" else PLAIN.get(engine, "tflite")
    return TrainerLearner(bundle, examples, backend=backend, delegate="cpu")


def run_device(engine: str, url: str, folder: Path) -> dict[str, Any]:
    """One device until the server has finished: its engine as it names itself, and its rounds."""
    with np.load(folder / f"{engine}.npz") as data:
        examples = Examples(data["x"], data["y"])
    made: list[Learner] = []

    def make(bundle: Bundle) -> Learner:
        made.append(learner(engine, bundle, examples))
        return made[-1]

    backend = CoreMLBackend() if engine.startswith("coreml") else PLAIN.get(engine, "tflite")
    transport = HttpTransport(url)
    device = DeviceClient(
        transport,
        None,
        folder / engine,
        backend=backend,
        device=engine,
        learner=make,
        patience=Patience(longest_s=0.2),
    )
    rounds = [{"round": r.round, "loss": r.loss, "error": r.error} for r in device.run()]
    transport.close()
    return {"engine": made[-1].engine, "rounds": rounds}


def main(engines: list[str], url: str, folder: Path) -> None:
    """Run devices, each in a thread, and print what each did as one line of JSON."""
    with ThreadPoolExecutor(len(engines)) as pool:
        reports = pool.map(lambda engine: run_device(engine, url, folder), engines)
    print(json.dumps(dict(zip(engines, reports, strict=True))))


if __name__ == "__main__":
    names = sys.argv[1].split(",")
    for name in names:
        if name in LITE:
            sys.modules[LITE[name]] = None  # type: ignore[assignment]
    main(names, sys.argv[2], Path(sys.argv[3]))
