# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.matrix`: every model on every engine, in float32 and in int8.

Each cell has how far the engine is from the NumPy reference, milliseconds, and the size of the file; where
an engine cannot run a model it has the reason. The models are those of `tests/models`: small, random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.codec import machine
from benchmarks.tables import between

RESULT = Path(__file__).parent / "results" / "matrix.json"
DOCS = Path(__file__).parents[1] / "docs" / "int8.md"
ENGINES = ("numpy", "onnxruntime", "openvino", "litert", "tflite-runtime")
ON_WORKSTATION = ("tflite-runtime",)  # no wheel of it takes NumPy 2, which device environments have
BATCH, CALIBRATION, LIMIT_S = 4, 32, 600

Row = dict[str, Any]


def convert(name: str, path: Path) -> None:
    """Write one model's bundle, with its int8 model."""
    import edgefl
    from tests.models.zoo import BY_NAME, alone

    entry = BY_NAME[name]
    options: dict[str, Any] = {"loss": entry.loss, "batch_size": BATCH, "name": name}
    model, example = entry.build(), entry.example_inputs()
    try:
        bundle = edgefl.convert(model, example, calibration=alone(entry.data(CALIBRATION)), **options)
    except edgefl.errors.EdgeflError as exc:
        print(f"{name}: no int8 model: {exc}", file=sys.stderr)
        bundle = edgefl.convert(model, example, **options)
    bundle.save(path)


def measure(names: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Model to engine to its cells."""
    table: dict[str, dict[str, Row]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names, 1):
            print(f"{number}/{len(names)} {name}", file=sys.stderr, flush=True)
            table[name] = _measure(name, Path(folder) / f"{name}.edgefl")
    return table


def _measure(name: str, path: Path) -> dict[str, Row]:
    made = _process([sys.executable, "-m", "benchmarks.matrix", "--convert", name, str(path)])
    if not path.exists():
        return {engine: {"reason": f"not converted: {made}"} for engine in ENGINES}
    reference = path.with_suffix(".npz")
    rows = {}
    for engine in ENGINES:
        command = ["-m", "benchmarks.matrix_worker", engine, str(path), str(reference)]
        output = _process([_python(engine), *command])
        try:
            rows[engine] = json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            rows[engine] = {"reason": f"the engine stopped: {output[-300:]}"}
    path.unlink()
    return rows


def _python(engine: str) -> str:
    device = os.environ.get("EDGEFL_DEVICE_PYTHON", ".venv-device/bin/python")
    return sys.executable if engine in ON_WORKSTATION or not Path(device).exists() else device


def _process(command: Sequence[str]) -> str:
    """A command's output, or what it complained of last."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    except subprocess.TimeoutExpired:
        return f"not done in {LIMIT_S} s"
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip()


def show(table: dict[str, dict[str, Row]]) -> str:
    """Two Markdown tables: float32 steps and int8 models."""
    return "\n\n".join([_float_table(table), _int8_table(table), *_reasons(table)])


def _float_table(table: dict[str, dict[str, Row]]) -> str:
    lines = [
        "Float32 step: milliseconds (largest relative error of a gradient), and the size of the files.",
        "",
        f"| model | {' | '.join(ENGINES)} | ONNX | TFLite |",
        f"|---|{'---:|' * (len(ENGINES) + 2)}",
    ]
    for name, rows in table.items():
        cells = [_cell(rows[engine].get("step", rows[engine]), "gradient_error") for engine in ENGINES]
        lines.append(f"| {name} | {' | '.join([*cells, *_sizes(rows, 'step')])} |")
    return "\n".join(lines)


def _int8_table(table: dict[str, dict[str, Row]]) -> str:
    lines = [
        "Int8 model: milliseconds (error of the outputs over their spread), and the size of the files.",
        "",
        f"| model | {' | '.join(ENGINES)} | ONNX | TFLite |",
        f"|---|{'---:|' * (len(ENGINES) + 2)}",
    ]
    for name, rows in table.items():
        cells = [_cell(rows[engine].get("int8", rows[engine]), "output_error") for engine in ENGINES]
        lines.append(f"| {name} | {' | '.join([*cells, *_sizes(rows, 'int8')])} |")
    return "\n".join(lines)


def _cell(cell: Row, error: str) -> str:
    if "reason" in cell:
        return "see below"
    exact = f"{cell[error]:.0e}" if error == "gradient_error" else f"{cell[error]:.1%}"
    return f"{cell['ms']:.1f} ({exact})"


def _sizes(rows: dict[str, Row], kind: str) -> list[str]:
    found = [rows[engine].get(kind, {}).get("bytes") for engine in ("onnxruntime", "litert")]
    return [f"{size / 1000:.0f} kB" if size else "-" for size in found]


def _reasons(table: dict[str, dict[str, Row]]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for name, rows in table.items():
        for engine, row in rows.items():
            for kind in ("step", "int8"):
                reason = row.get("reason") or row.get(kind, {}).get("reason")
                if reason:
                    lines.setdefault(reason, []).append(f"{name} on {engine} ({kind})")
    return [f"- {', '.join(dict.fromkeys(where))}: {reason}" for reason, where in lines.items()]


def main() -> int:
    """Measure, print the tables, keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", help="names with commas between; all of them if left out")
    parser.add_argument("--json", action="store_true", help="print the rows instead of the tables")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results and docs/int8.md")
    parser.add_argument("--convert", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        convert(options.convert[0], Path(options.convert[1]))
        return 0
    from tests.models.zoo import BY_NAME

    names = options.models.split(",") if options.models else list(BY_NAME)
    table = measure(names)
    print(json.dumps(table, indent=1) if options.json else show(table))
    if options.keep:
        report = {"date": date.today().isoformat(), "machine": machine(), "models": table}
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
        told = f"{date.today().isoformat()}, {machine()['processor']}, one thread, batches of {BATCH}."
        DOCS.write_text(between(DOCS.read_text(), "matrix", f"{told}\n\n{show(table)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
