# SPDX-License-Identifier: Apache-2.0
"""One bundle on one engine, in a process of its own: arguments are ENGINE BUNDLE REFERENCE.

Prints one JSON object: what the float32 step and the int8 model cost and how far they are from NumPy.
The engine `numpy` writes the reference the others are compared with.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

STEPS, TIMED, RATE = 20, 15, 0.01
BACKENDS = {"litert": "tflite", "tflite-runtime": "tflite", "onnxruntime": "onnx"}
PACKAGES = {"litert": "ai-edge-litert"}

Cell = dict[str, Any]
Arrays = Mapping[str, Any]


def main(engine: str, path: str, reference: str) -> int:
    if engine == "tflite-runtime":
        # Its name comes second in the runtime's list; an entry of None makes the import of the first fail.
        sys.modules["ai_edge_litert"] = sys.modules["ai_edge_litert.interpreter"] = None  # type: ignore[assignment]
    import edgefl
    from edgefl.runtime.backends import open_backend

    bundle = edgefl.Bundle.open(path)
    backend = open_backend(bundle, BACKENDS.get(engine, engine))
    golden, parameters = bundle.golden(), bundle.parameters()
    wanted = {} if engine == "numpy" else dict(np.load(reference))
    cells = {
        "version": version(PACKAGES.get(engine, engine)),
        "step": _attempt(lambda: _step(bundle, backend, golden, parameters, wanted)),
        "int8": _attempt(lambda: _int8(bundle, backend, golden, parameters, wanted)),
    }
    if engine == "numpy":
        np.savez(reference, **wanted)
    print(json.dumps(cells))
    return 0


def _attempt(cell: Callable[[], Cell]) -> Cell:
    from edgefl.errors import EdgeflError

    try:
        return cell()
    except EdgeflError as exc:
        return {"reason": " ".join(str(exc).split())[:300]}


def _step(bundle: Any, backend: Any, golden: Arrays, parameters: Arrays, wanted: dict[str, Any]) -> Cell:
    """Gradients of the golden batch, the loss after twenty steps on it, and milliseconds per step."""
    program = backend.load(bundle, "step")
    data = {name: value for name, value in golden.items() if name in _inputs(bundle)}
    current = {p.name: parameters[p.name] for p in bundle.manifest.trained}
    first = {name: np.array(value) for name, value in program({**data, **current}).items()}
    gradients = {name: value for name, value in first.items() if name.startswith("grad/")}
    wanted.setdefault("loss", first["loss"])
    for name, value in gradients.items():
        wanted.setdefault(name, value)
    for _ in range(STEPS):
        made = program({**data, **current})
        current = {name: value - RATE * made[f"grad/{name}"] for name, value in current.items()}
    last = float(program({**data, **current})["loss"])
    wanted.setdefault("last", np.float64(last))
    final = float(wanted["last"])
    return {
        "ms": _milliseconds(lambda: program({**data, **current})),
        "gradient_error": _worst(gradients, {name: wanted[name] for name in gradients}),
        "trajectory_error": abs(last - final) / max(abs(final), 1e-3),
        "bytes": len(bundle.artifact(backend.target, "step")),
    }


def _int8(bundle: Any, backend: Any, golden: Arrays, parameters: Arrays, wanted: dict[str, Any]) -> Cell:
    """The int8 model's outputs against the float32 model's, example by example."""
    if bundle.manifest.find(backend.target, "infer-int8") is None:
        return {"reason": "int8 is made for models with one output and at least one floating-point input"}
    names = [spec.name for spec in bundle.manifest.inputs]
    data = {name: golden[name] for name in names}
    if "output" not in wanted:
        trained = {p.name: parameters[p.name] for p in bundle.manifest.trained}
        wanted["output"] = np.array(backend.load(bundle, "infer")({**data, **trained})["output"])
    program = backend.load(bundle, "infer-int8")
    rows = _by_row(program, data)
    return {
        "ms": _milliseconds(lambda: program({n: v[: rows[1]] for n, v in data.items()})),
        "output_error": float(np.sqrt(np.square(rows[0] - wanted["output"]).mean()))
        / (float(wanted["output"].std()) or 1.0),
        "bytes": len(bundle.artifact(backend.target, "infer-int8")),
    }


def _by_row(program: Any, data: Arrays) -> tuple[Any, int]:
    """All examples' outputs, and how many the file takes at a time: one, or the bundle's batch."""
    count = len(next(iter(data.values())))
    first = _tried(program, {name: value[:1] for name, value in data.items()})
    if first is None or len(first) != 1:
        return np.array(program(dict(data))["output"]), count
    made = [np.array(program({n: v[i : i + 1] for n, v in data.items()})["output"]) for i in range(count)]
    return np.concatenate(made), 1


def _tried(program: Any, feeds: Arrays) -> Any:
    from edgefl.errors import EdgeflError

    try:
        return program(feeds)["output"]
    except EdgeflError:
        return None


def _inputs(bundle: Any) -> set[str]:
    return {"weight", *(spec.name for spec in bundle.manifest.step_inputs), *_labels(bundle)}


def _labels(bundle: Any) -> list[str]:
    return [name for name in bundle.golden() if name == "y" or name.startswith("y/")]


def _worst(found: Arrays, wanted: Arrays) -> float:
    """The largest distance of a gradient over its length.

    Some gradients are zero but for rounding; none counts as shorter than 1 % of what a parameter of its size
    would have of the whole gradient.
    """
    whole = np.sqrt(sum(float(np.square(value).sum()) for value in wanted.values()))
    elements = sum(value.size for value in wanted.values())
    worst = 0.0
    for name, value in wanted.items():
        floor = 0.01 * whole * np.sqrt(value.size / elements)
        distance = float(np.linalg.norm(found[name] - value))
        worst = max(worst, distance / max(float(np.linalg.norm(value)), floor, 1e-12))
    return worst


def _milliseconds(call: Callable[[], Any]) -> float:
    times = []
    for _ in range(TIMED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
