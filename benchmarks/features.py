# SPDX-License-Identifier: Apache-2.0
"""What running the frozen part once per example saves.

    python -m benchmarks.features [--keep] [--json]

MobileNetV2 (width 0.35, 96 pixels) with its last layer trained, so that everything before it is a `features`
graph, in float32 and in int8. Seconds of 1, 2 and 5 epochs over the same examples, three ways: the frozen
part run in every epoch, once per `fit`, and not at all since its features were on disk from an earlier round.
The fastest of several runs, one thread. `--keep` writes `benchmarks/results/features.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codec import machine
from edgefl.bundle import Bundle
from edgefl.errors import BackendError
from edgefl.runtime import Trainer
from edgefl.runtime.feature_cache import FeatureCache

RESULTS = Path(__file__).parent / "results" / "features.json"
EPOCHS, EXAMPLES, REPEATS, CALIBRATION = (1, 2, 5), 128, 3, 64
ENGINES = ("onnx", "tflite")
VARIANTS = ("float32", "int8")
PACKAGES = ("onnxruntime", "onnxruntime-training-cpu", "ai-edge-litert", "tflite-runtime")

Row = dict[str, Any]


def bundles(folder: Path) -> dict[str, Path]:
    """The network's bundles, by the arithmetic of the frozen part."""
    import edgefl
    from benchmarks.step_models import network

    made = network("mobilenetv2")
    random = np.random.default_rng(1)
    sample = random.standard_normal((CALIBRATION, *made.x.shape[1:])).astype(np.float32)
    paths = {}
    for variant in VARIANTS:
        paths[variant] = folder / f"{variant}.edgefl"
        converted = edgefl.convert(
            made.module,
            made.x,
            trainable="last:1",
            batch_size=len(made.x),
            targets=ENGINES,
            calibration=sample if variant == "int8" else None,
            name="mobilenetv2",
        )
        converted.save(paths[variant])
    return paths


def measure(path: Path, engine: str) -> Row:
    """Seconds by number of epochs, each of the three ways, in this process."""
    opened = Bundle.open(path)
    random = np.random.default_rng(2)
    x = random.standard_normal((EXAMPLES, *opened.manifest.inputs[0].shape[1:])).astype(np.float32)
    y = random.integers(0, 10, EXAMPLES).astype(np.int32)
    with tempfile.TemporaryDirectory() as folder:
        plain = Trainer(opened, backend=engine)
        cached = Trainer(opened, backend=engine, features=FeatureCache(folder))
        first = cached.fit(x, y)
        plain.fit(x, y)
        again = cached.fit(x, y)
        rows = [_row(plain, cached, x, y, epochs) for epochs in EPOCHS]
    return {
        "engine": f"{plain.backend.name} {plain.backend.version}",
        "placements": [str(placement) for placement in first.placements],
        "examples": EXAMPLES,
        "from_disk": again.features_cached,
        "rows": rows,
    }


def _row(plain: Trainer, cached: Trainer, x: Any, y: Any, epochs: int) -> Row:
    every = _fastest(lambda: [plain.fit(x, y) for _ in range(epochs)])
    once = _fastest(lambda: plain.fit(x, y, epochs=epochs))
    kept = _fastest(lambda: cached.fit(x, y, epochs=epochs))
    return {
        "epochs": epochs,
        "every_epoch_s": every,
        "once_s": once,
        "from_disk_s": kept,
        "once_saves": 1 - once / every,
        "from_disk_saves": 1 - kept / every,
    }


def _fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def measured(path: Path, engine: str) -> Row:
    """The same in a process of its own, so that engines and converters do not meet."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.features", "--worker", str(path), engine]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"engine": engine, "error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def report() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        paths = bundles(Path(folder))
        rows = [
            {"features": variant, **measured(path, engine)}
            for variant, path in paths.items()
            for engine in ENGINES
        ]
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": _versions(), "rows": rows}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def show(made: Row) -> None:
    for entry in made["rows"]:
        print(f"\n{entry['engine']}, features in {entry['features']}")
        if "error" in entry:
            print(f"  {entry['error']}")
            continue
        for placement in entry["placements"]:
            print(f"  {placement}")
        print(f"  {'epochs':>6} {'every epoch':>12} {'once per fit':>13} {'from disk':>10}")
        for row in entry["rows"]:
            saved = f"saved {row['once_saves']:.0%} and {row['from_disk_saves']:.0%}"
            print(
                f"  {row['epochs']:>6} {row['every_epoch_s']:>10.3f} s {row['once_s']:>11.3f} s "
                f"{row['from_disk_s']:>8.3f} s   {saved}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.features", description=__doc__)
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--worker", nargs=2, metavar=("BUNDLE", "ENGINE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        try:
            print(json.dumps(measure(Path(options.worker[0]), options.worker[1])))
        except BackendError as exc:
            print(exc, file=sys.stderr)
            return 1
        return 0
    made = report()
    if options.keep:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made)) if options.json else show(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
