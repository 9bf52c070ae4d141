# SPDX-License-Identifier: Apache-2.0
"""What a step costs outside its engine.

    python -m benchmarks.overhead [--models cnn,bert] [--engines onnx,tflite] [--folder FOLDER] [--json]

`whole` is a step as `Trainer.fit` makes it: feeds, the engine, checks, the update of the parameters. `engine`
is the engine alone on the same graph, with inputs and outputs in buffers of its own that nobody touches
between two runs. Blocks of both are taken in turn in one process of the device environment, one thread; each
figure is the least of all, since other work on the machine only adds to it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step_shapes import NAMES
from benchmarks.tables import markdown

ENGINES = ("onnx", "openvino", "tflite")
BLOCKS, BLOCK_S = 6, 0.3

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead")
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--folder", type=Path, help="networks of `benchmarks.step`, made where absent")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(json.dumps(measure(Path(options.worker[0]), options.worker[1])))
        return 0
    with tempfile.TemporaryDirectory(prefix="edgefl-overhead-") as temporary:
        rows = run(options.folder or Path(temporary), options.models.split(","), options.engines.split(","))
    print(json.dumps(rows, indent=1) if options.json else table(rows))
    return 0


def run(folder: Path, models: list[str], engines: list[str]) -> list[Row]:
    """Every engine on every network, each pair in a process of its own."""
    from benchmarks.step import ROOT, device_python, prepare

    if missing := [name for name in models if not (folder / name / "batch.npz").exists()]:
        prepare(folder, missing)
    rows = []
    for model in models:
        for engine in engines:
            worker = [device_python(), "-m", "benchmarks.overhead", "--worker", str(folder / model), engine]
            done = subprocess.run(worker, cwd=ROOT, capture_output=True, text=True)
            lines = done.stdout.strip().splitlines()
            why = (done.stderr.strip().splitlines() or ["no output"])[-1]
            found = json.loads(lines[-1]) if lines else {"error": why}
            rows.append({"model": model, "engine": engine, **found})
    return rows


def table(rows: list[Row]) -> str:
    """Markdown; what did not run is said below."""
    good = [row for row in rows if "error" not in row]
    figures = [(f"{r['whole_ms']:.2f}", f"{r['engine_ms']:.2f}", f"{100 * r['outside']:.1f}") for r in good]
    lines = [(r["model"], r["engine"], *f) for r, f in zip(good, figures, strict=True)]
    head = ("model", "engine", "whole, ms", "engine, ms", "outside, %")
    failed = [f"not timed: {r['model']}, {r['engine']}: {r['error']}" for r in rows if "error" in r]
    return "\n".join([markdown(head, lines, left=2), *failed])


# -- in the worker


def measure(folder: Path, engine: str) -> Row:
    """Milliseconds of a whole step and of its engine alone."""
    from edgefl.bundle import Bundle
    from edgefl.runtime import Trainer

    delegate = "xnnpack" if engine == "tflite" else "cpu"
    trainer = Trainer(Bundle.open(folder / "model.edgefl"), engine, delegate)
    with np.load(folder / "batch.npz") as file:
        x, y = file["x"], file["y"]

    def whole(count: int) -> list[float]:
        marks = [time.perf_counter()]
        trainer.fit(x, y, epochs=count, lr=1e-3, on_step=lambda *_: marks.append(time.perf_counter()))
        # Before the first step lies what a fit does once.
        return [1e3 * (after - before) for before, after in pairwise(marks[1:])]

    whole(4)
    invoke = alone(trainer, engine)

    def bare(count: int) -> list[float]:
        times = []
        for _ in range(count):
            start = time.perf_counter()
            invoke()
            times.append(1e3 * (time.perf_counter() - start))
        return times

    count = max(4, round(1e3 * BLOCK_S / statistics.median(bare(4))))
    both = [(min(whole(count)), min(bare(count))) for _ in range(BLOCKS)]
    total, inside = (min(times) for times in zip(*both, strict=True))
    return {"whole_ms": total, "engine_ms": inside, "outside": 1 - inside / total}


def alone(trainer: Any, engine: str) -> Callable[[], object]:
    """A function that runs the loaded step graph on what it was last fed with."""
    feeds, program = _last_feeds(trainer)
    own = program._names.to_own(feeds)
    if engine == "onnx":
        binding = program._session.io_binding()
        for name, value in own.items():
            binding.bind_cpu_input(name, value)
        for output in program._session.get_outputs():
            binding.bind_output(output.name, "cpu")
        return lambda: program._session.run_with_iobinding(binding)
    if engine == "openvino":
        return lambda: program._request.infer()
    runner = program._runner
    return lambda: runner._interpreter_wrapper.Invoke(runner._subgraph_index)


def _last_feeds(trainer: Any) -> tuple[Mapping[str, Any], Any]:
    """What the step graph takes, and the engine's own program behind whatever wraps it."""
    program = trainer._programs["step"]
    batch = next(iter(trainer._batches(*trainer._checked(*_examples(trainer), None))()))[0]
    while not hasattr(program, "_names"):
        program = getattr(program, "_call", None) or program._program
    return {**batch, **trainer.parameters()}, program


def _examples(trainer: Any) -> tuple[Any, Any]:
    golden = trainer.bundle.golden()
    return golden["x"], golden["y"]


if __name__ == "__main__":
    sys.exit(main())
