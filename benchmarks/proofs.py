# SPDX-License-Identifier: Apache-2.0
"""Every model for every engine, proved as `convert` proves it, with its int8 files.

    python -m benchmarks.proofs [--only NAME ...] [--minutes M] [--table]

Each model of `benchmarks.models` is converted for ONNX and TFLite, calibrated for int8, and all its files run
on the engines installed here with and without their delegates, on two batches. Those that convert quickest
come first. Results are kept in benchmarks/results/proofs.json after each model; docs/models.md shows them.
`--minutes` stops before another model once so long has passed; `--table` measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.models import PAGE, entries
from benchmarks.models import RESULTS as MEASURED
from benchmarks.tables import between
from edgefl.errors import ConversionError, NotProved

RESULTS = Path(__file__).parent / "results" / "proofs.json"
BATCH, CALIBRATION = 4, 32

Row = dict[str, Any]


def row(entry: Any) -> Row:
    """What became of one model: `right`, `wrong`, `refused` or `failed`, and what was not right where."""
    try:
        return proved(entry)
    except NotProved as exc:
        return {"outcome": "wrong", "message": str(exc)}
    except ConversionError as exc:
        return {"outcome": "refused", "message": f"{type(exc).__name__}: {exc}"}
    except Exception as exc:
        return {"outcome": "failed", "message": f"{type(exc).__name__}: {exc}"}


def proved(entry: Any) -> Row:
    """Converted with int8 files; without, and why, where they cannot be made."""
    import edgefl
    from tests.models.zoo import alone

    options = {"loss": entry.loss, "batch_size": BATCH, "name": entry.name}
    model, example = entry.build(), entry.example_inputs()
    integers = ""
    try:
        bundle = edgefl.convert(model, example, calibration=alone(entry.data(CALIBRATION)), **options)
    except NotProved:
        raise
    except ConversionError as exc:
        integers = f"{type(exc).__name__}: {exc}"
        bundle = edgefl.convert(model, example, **options)
    proof = bundle.manifest.report["proof"]
    return {
        "outcome": "right",
        "files": len(bundle.manifest.artifacts),
        "engines": sorted({found["engine"] for found in proof["engines"]}),
        "not": [_told(found, kind, why) for found in proof["engines"] for kind, why in found["not"].items()],
        "kinks": len(proof["kinks"]),
        "int8": integers,
    }


def _told(found: Row, kind: str, why: str) -> str:
    where = found["engine"] if found["delegate"] == "cpu" else f"{found['engine']} with {found['delegate']}"
    return f"{found['target']}/{kind} on {where}: {why}"


def table(rows: dict[str, Row]) -> str:
    """How many models are right everywhere, and what is not, a line each."""
    right = [r for r in rows.values() if r["outcome"] == "right"]
    engines = sorted({engine for r in right for engine in r["engines"]})
    files = sum(r["files"] for r in right)
    whole = (
        f"{len(rows)} models on {', '.join(engines)}. {len(right)} were written, in {files} files, "
        f"{sum(not r['int8'] for r in right)} of them with int8 files."
    )
    lines = [
        textwrap.fill(whole, 100, break_on_hyphens=False),
        "",
        "| model | not right |",
        "|---|---|",
    ]
    for name, r in rows.items():
        told = [f"{r['outcome']}: {r['message']}"] if "message" in r else list(r["not"])
        told += [f"no int8 files: {r['int8']}"] if r.get("int8") else []
        lines += [f"| {name} | {_cell(one)} |" for one in told]
    return "\n".join(lines)


def _cell(message: str) -> str:
    return " ".join(message.split())[:300].replace("|", "\\|")


def by_cost(names: list[str]) -> list[str]:
    """Those that took least to convert first; those that were refused cost nothing."""
    known = json.loads(MEASURED.read_text())
    return sorted(names, key=lambda name: known.get(name, {}).get("seconds", 0.0))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="names of models")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no model after so long")
    parser.add_argument("--table", action="store_true", help="measure nothing, rewrite the table of the docs")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")  # what is wrong elsewhere is in the report
    known, begun = entries(), time.monotonic()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [] if options.table else options.only or by_cost(list(known)):
        if time.monotonic() - begun > 60 * options.minutes:
            break
        rows[name] = row(known[name][1])
        print(name, json.dumps(rows[name]), flush=True)
        rows = {n: rows[n] for n in known if n in rows}
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    PAGE.write_text(between(PAGE.read_text(), "proofs", table(rows)))
    return int(any(r["outcome"] in ("failed", "wrong") for r in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
