# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks.matrix`: every model on every engine, in float32 and in int8.

Each cell has how far the engine is from the NumPy reference, milliseconds, and the size of the file; where
an engine cannot run a model it has the reason. The models are those of `tests/models`: small, random weights.
Language models of the step benchmark also run with LoRA factors over frozen weights of 32, 8 and 4 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.codec import machine
from benchmarks.tables import between

RESULT = Path(__file__).parent / "results" / "matrix.json"
DOCS = Path(__file__).parents[1] / "docs" / "int8.md"
ENGINES = ("numpy", "onnxruntime", "openvino", "litert", "tflite-runtime")
ON_WORKSTATION = ("tflite-runtime",)  # no wheel of it takes NumPy 2, which device environments have
PACKED = {"bert": "lora:rank=4", "gru": "lora:rank=4", "llama": "all"}
"""Networks of the step benchmark, large enough for packed weights, and what of them is trained."""
BATCH, CALIBRATION, LIMIT_S = 4, 32, 600

FLOAT = """Float32 step: milliseconds (largest relative error of a gradient, relative error of the loss after
twenty steps), and the size of the files."""
INT8 = "Int8 model: milliseconds (error of the outputs over their spread), and the size of the files."
PACKED_STEP = "Step of LoRA factors over frozen weights of 32, 8 and 4 bits, as in the first table."

Row = dict[str, Any]


def convert_packed(name: str, path: Path, bits: int) -> None:
    """Write a language model's bundle, LoRA factors over frozen weights of 32, 8 or 4 bits."""
    from benchmarks.step_models import network
    from edgefl.converters import convert

    made, packed = network(name), bits if bits < 32 else None
    convert(made.module, made.x, batch_size=len(made.x), trainable=PACKED[name], frozen_bits=packed).save(
        path
    )


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


def measure(names: Sequence[str], packed: Sequence[str]) -> dict[str, dict[str, Row]]:
    """Model to engine to its cells; models to pack are there in three sizes."""
    table: dict[str, dict[str, Row]] = {}
    jobs = [(name, 0) for name in names] + [(name, bits) for name in packed for bits in (32, 8, 4)]
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, bits) in enumerate(jobs, 1):
            title = f"{name}, {bits} bits" if bits else name
            print(f"{number}/{len(jobs)} {title}", file=sys.stderr, flush=True)
            table[title] = _measure(name, Path(folder) / f"{number}.edgefl", bits)
    return table


def _measure(name: str, path: Path, bits: int) -> dict[str, Row]:
    made = _process([sys.executable, "-m", "benchmarks.matrix", "--convert", name, str(path), str(bits)])
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
    """Markdown tables: float32 steps, int8 models, steps over frozen weights of few bits."""
    packed = {name: rows for name, rows in table.items() if name.endswith(" bits")}
    whole = {name: rows for name, rows in table.items() if name not in packed}
    parts = [_table(FLOAT, whole, "step", _exactness), _table(INT8, whole, "int8", _closeness)]
    if packed:
        parts.append(_table(PACKED_STEP, packed, "step", _exactness))
    return "\n\n".join([*parts, *_reasons(table)])


def _table(title: str, table: dict[str, dict[str, Row]], kind: str, errors: Callable[[Row], str]) -> str:
    lines = [title, "", f"| model | {' | '.join(ENGINES)} | ONNX | TFLite |"]
    lines.append(f"|---|{'---:|' * (len(ENGINES) + 2)}")
    for name, rows in table.items():
        cells = [_cell(rows[engine].get(kind, rows[engine]), errors) for engine in ENGINES]
        lines.append(f"| {name} | {' | '.join([*cells, *_sizes(rows, kind)])} |")
    return "\n".join(lines)


def _cell(cell: Row, errors: Callable[[Row], str]) -> str:
    return "see below" if "reason" in cell else f"{cell['ms']:.1f} ({errors(cell)})"


def _exactness(cell: Row) -> str:
    return f"{cell['gradient_error']:.0e}, {cell['trajectory_error']:.0e}"


def _closeness(cell: Row) -> str:
    return f"{cell['output_error']:.1%}"


def versions(table: dict[str, dict[str, Row]]) -> str:
    """The engines with their releases, wherever one of them ran."""
    found = {
        engine: row["version"] for rows in table.values() for engine, row in rows.items() if "version" in row
    }
    return ", ".join(f"{engine} {release}" for engine, release in found.items())


def _sizes(rows: dict[str, Row], kind: str) -> list[str]:
    found = [rows[engine].get(kind, {}).get("bytes") for engine in ("onnxruntime", "litert")]
    return [f"{size / 1000:.0f} kB" if size else "-" for size in found]


def _reasons(table: dict[str, dict[str, Row]]) -> list[str]:
    lines: dict[str, list[str]] = {}
    for name, rows in table.items():
        for engine, row in rows.items():
            for kind in ("step",) if name.endswith(" bits") else ("step", "int8"):
                reason = row.get("reason") or row.get(kind, {}).get("reason")
                if reason:
                    lines.setdefault(reason, []).append(f"{name} on {engine} ({kind})")
    return [f"- {', '.join(dict.fromkeys(where))}: {reason}" for reason, where in lines.items()]


def main() -> int:
    """Measure, print the tables, keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", help="names with commas between, NAME/lora for small weights; all if left out"
    )
    parser.add_argument("--json", action="store_true", help="print the rows instead of the tables")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results and docs/int8.md")
    parser.add_argument("--convert", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        name, path, bits = options.convert
        if bits == "0":
            convert(name, Path(path))
        else:
            convert_packed(name, Path(path), int(bits))
        return 0
    from tests.models.zoo import BY_NAME

    names = options.models.split(",") if options.models else [*BY_NAME, *(f"{name}/lora" for name in PACKED)]
    table = measure([n for n in names if n in BY_NAME], [n[:-5] for n in names if n.endswith("/lora")])
    print(json.dumps(table, indent=1) if options.json else show(table))
    if options.keep:
        report = {"date": date.today().isoformat(), "machine": machine(), "models": table}
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
        when = f"{date.today().isoformat()}, {machine()['processor']}, one thread, batches of {BATCH}"
        told = f"{when}; {versions(table)}."
        DOCS.write_text(between(DOCS.read_text(), "matrix", f"{told}\n\n{show(table)}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
