# SPDX-License-Identifier: Apache-2.0
"""One training step: edgefl's graph on stock engines beside the training frameworks.

    python -m benchmarks.step [--models cnn,bert] [--engines onnx,eager] [--threads 1,2]

Every engine trains the same network from the same weights on the same batch with plain SGD, in a process of
its own; blocks of steps are taken in turn, so that what else the machine does meets all of them. An engine
whose first losses are not PyTorch's is not timed. The newest onnxruntime, OpenVINO and LiteRT run in the
device environment: `EDGEFL_DEVICE_PYTHON`, or `.venv-device`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.step_shapes import NAMES

RESULTS = Path(__file__).parent / "results" / "step.json"
ROOT = Path(__file__).parents[1]
BLOCK_S = 0.25
TOLERANCE = 1e-3  # relative, of the first losses

Row = dict[str, Any]


@dataclass(frozen=True)
class Engine:
    """One column: a function of `step_engines`, and whether it runs in the device environment."""

    label: str
    device: bool = False


ENGINES = {
    "onnx": Engine("step on onnxruntime", device=True),
    "openvino": Engine("step on OpenVINO", device=True),
    "onnx_older": Engine("step on ort-training's build"),
    "tflite": Engine("step on LiteRT", device=True),
    "tflite_runtime": Engine("step on tflite-runtime"),
    "ort_training": Engine("ort-training"),
    "eager": Engine("PyTorch"),
    "compiled": Engine("torch.compile"),
    "train_on_batch": Engine("Keras train_on_batch"),
    "tf_function": Engine("tf.function"),
}
STOCK = ("onnx", "openvino")
PEERS = {
    "PyTorch": ("eager",),
    "ort-training": ("ort_training",),
    "TensorFlow": ("tf_function", "train_on_batch"),
    "best peer": ("eager", "compiled", "ort_training", "tf_function", "train_on_batch"),
}


@dataclass
class Worker:
    """A process of `step_worker`, and what it has measured."""

    name: str
    process: subprocess.Popen[str]
    ms: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    version: str = ""
    peak_mib: float = 0.0
    error: str = ""

    def ready(self) -> None:
        """Wait for its first steps, which count as warming up."""
        first = self._answer()
        self.ms.clear()
        self.version = first.get("version", "")

    def block(self) -> None:
        """Make about `BLOCK_S` of steps."""
        speed = statistics.median(self.ms) if self.ms else 20.0
        count = min(max(round(1e3 * BLOCK_S / speed), 3), 60) if self.ms else 4
        self._tell(f"{count}\n")
        self._answer()

    def end(self) -> None:
        self._tell("\n")
        self.process.communicate()  # closes the pipes and waits

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
        except BrokenPipeError:
            self.error = self.error or "its process ended"

    def _answer(self) -> Row:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        made: Row = json.loads(line) if line else {"error": f"its process ended with {self.process.wait()}"}
        self.error = made.get("error", self.error)
        self.ms += made.get("ms", [])
        self.losses += made.get("losses", [])
        self.peak_mib = made.get("peak_mib", self.peak_mib)
        return made

    def row(self) -> Row:
        if self.error:
            return {"error": self.error}
        return {
            "median_ms": round(statistics.median(self.ms), 3),
            "min_ms": round(min(self.ms), 3),
            "steps": len(self.ms),
            "peak_mib": round(self.peak_mib),
            "version": self.version,
        }


def start(name: str, folder: Path, threads: int) -> Worker:
    """An engine's process. `onnx_older` is `onnx` in the workstation environment."""
    function = {"onnx_older": "onnx"}.get(name, name)
    python = device_python() if ENGINES[name].device else sys.executable
    command = [python, "-m", "benchmarks.step_worker", f"step_engines:{function}", str(folder), str(threads)]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **quiet},
    )
    return Worker(name, process)


def device_python() -> str:
    return os.environ.get("EDGEFL_DEVICE_PYTHON", str(ROOT / ".venv-device" / "bin" / "python"))


def measure(folder: Path, engines: Sequence[str], threads: int, rounds: int) -> dict[str, Row]:
    """All engines on one network, in turn."""
    workers = [start(name, folder, threads) for name in engines]
    for worker in workers:
        worker.ready()
    check_losses(workers)
    for _ in range(rounds):
        for worker in workers:
            if not worker.error:
                worker.block()
    for worker in workers:
        worker.end()
    return {worker.name: worker.row() for worker in workers}


def check_losses(workers: Sequence[Worker]) -> None:
    """Mark as failed what does not train as PyTorch does, or as the first engine where that is left out."""
    good = [worker for worker in workers if not worker.error]
    expected = next((w for w in good if w.name == "eager"), good[0]).losses if good else []
    for worker in good:
        pairs = zip(worker.losses, expected, strict=True)
        if any(abs(loss - want) > TOLERANCE * abs(want) for loss, want in pairs):
            worker.error = f"losses {worker.losses} instead of {expected}"


def prepare(folder: Path, models: Sequence[str]) -> dict[str, Row]:
    """The networks' files; one process for all."""
    command = [sys.executable, "-m", "benchmarks.step_prepare", str(folder), *models]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    made = subprocess.run(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    rows = [json.loads(line) for line in made.stdout.splitlines() if line.startswith("{")]
    return {row.pop("model"): row for row in rows}


def best(row: dict[str, Row], names: Sequence[str]) -> float:
    """The smallest time of the engines named; NaN where none ran."""
    times = [row[name]["min_ms"] for name in names if "min_ms" in row.get(name, {})]
    return min(times, default=math.nan)


def ratios(row: dict[str, Row]) -> dict[str, float]:
    """The best stock engine's time over that of each group of peers."""
    ours = best(row, STOCK)
    return {peer: ours / best(row, names) for peer, names in PEERS.items()}


def mean(values: Sequence[float]) -> float:
    """The geometric mean of what is known."""
    known = [math.log(v) for v in values if not math.isnan(v)]
    return math.exp(sum(known) / len(known)) if known else math.nan


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show(report: Row) -> None:
    """The tables of the docs."""
    models, shown = report["models"], list(report["engines"])
    for threads, rows in report["times"].items():
        print(f"\nMilliseconds per step, {threads} thread(s), median (fastest):\n")
        cells = [[m, *(_cell(rows[m].get(e, {})) for e in shown)] for m in rows]
        print(table(["model", *(ENGINES[e].label for e in shown)], cells))
        print(f"\nFastest stock engine over peers, {threads} thread(s):\n")
        found = {m: ratios(row) for m, row in rows.items()}
        lines = [[m, _winner(rows[m]), *(_number(found[m][p]) for p in PEERS)] for m in rows]
        means = [_number(mean([found[m][p] for m in rows])) for p in PEERS]
        print(table(["model", "stock engine", *PEERS], [*lines, ["geometric mean", "", *means]]))
    first = next(iter(report["times"].values()))
    print("\nPeak memory of a process that only trains, MiB:\n")
    cells = [[m, *(str(first[m].get(e, {}).get("peak_mib", "-")) for e in shown)] for m in first]
    print(table(["model", *(ENGINES[e].label for e in shown)], cells))
    print("\nConversion: " + ", ".join(f"{m} {row['conversion_s']} s" for m, row in models.items()))
    for threads, rows in report["times"].items():
        for model, row in rows.items():
            for engine, cell in row.items():
                if "error" in cell:
                    print(f"not timed: {model}, {engine}, {threads} thread(s): {cell['error']}")


def _cell(row: Row) -> str:
    return f"{row['median_ms']:.1f} ({row['min_ms']:.1f})" if "min_ms" in row else "-"


def _winner(row: dict[str, Row]) -> str:
    ours = best(row, STOCK)
    return next((name for name in STOCK if row.get(name, {}).get("min_ms") == ours), "-")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _names(allowed: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        unknown = sorted(set(names) - set(allowed))
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; allowed {', '.join(allowed)}")
        return names

    return parse


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--models", type=_names(NAMES), default=list(NAMES), help=", ".join(NAMES))
    parser.add_argument("--engines", type=_names(list(ENGINES)), default=list(ENGINES))
    parser.add_argument("--threads", type=_names(["1", "2"]), default=["1", "2"])
    parser.add_argument("--rounds", type=int, default=4, help="blocks of each engine")
    parser.add_argument(
        "--folder", type=Path, help="where the networks are or will be; a temporary one if absent"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON file")
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgefl-step-") as temporary:
        report = run(options, options.folder or Path(temporary))
    show(report)
    return 0


def run(options: argparse.Namespace, folder: Path) -> Row:
    from benchmarks.codec import machine

    report: Row = {"machine": machine(), "engines": options.engines, "models": {}, "times": {}}
    _progress(f"converting {', '.join(options.models)}")
    report["models"] = prepare(folder, options.models)
    for threads in options.threads:
        rows = report["times"].setdefault(threads, {})
        for model in options.models:
            _progress(f"{model}, {threads} thread(s)")
            # Compiling takes minutes: once will do.
            engines = [e for e in options.engines if e != "compiled" or threads == options.threads[0]]
            rows[model] = measure(folder / model, engines, int(threads), options.rounds)
            options.out.write_text(json.dumps(report, indent=1) + "\n")
    return report


def _progress(text: str) -> None:
    print(f".. {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
