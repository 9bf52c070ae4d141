# SPDX-License-Identifier: Apache-2.0
"""Which models convert, and how far their gradients and their training are from the framework's own.

    python -m benchmarks.models [--only NAME ...] [--table]

Every model of tests/models/zoo.py (promised) and tests/models/surprises.py (not planned for) is made from a
small configuration with random weights, converted, and compared as `tests/models/measure.py` says. A model is
`converted`, or `refused` with the message its user sees; anything else is `failed`. Results are kept in
benchmarks/results/models.json after each model; docs/models.md shows them. Seconds are processor time of the
conversion. `--table` rewrites the table of docs/models.md from the results without measuring.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgefl.errors import ConversionError

RESULTS = Path(__file__).parent / "results" / "models.json"
PAGE = Path(__file__).parent.parent / "docs" / "models.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

Row = dict[str, Any]


def entries() -> dict[str, tuple[str, Any]]:
    """By name: `promised` or `surprise`, and the entry."""
    from tests.models import surprises, zoo

    return {e.name: ("promised", e) for e in zoo.ENTRIES} | {
        e.name: ("surprise", e) for e in surprises.ENTRIES
    }


def row(kind: str, entry: Any) -> Row:
    """What became of one model."""
    head = {"kind": kind, "framework": entry.framework, "family": entry.family}
    try:
        return {**head, **measured(entry)}
    except ConversionError as exc:
        return {**head, "outcome": "refused", "message": f"{type(exc).__name__}: {exc}"}
    except Exception as exc:
        return {**head, "outcome": "failed", "message": f"{type(exc).__name__}: {exc}"}


def measured(entry: Any) -> Row:
    from tests.models.measure import measure

    found = measure(entry)
    rounded = {k: _rounded(v) if isinstance(v, float) else v for k, v in asdict(found).items()}
    return {"outcome": "converted" if found.right else "wrong", **rounded}


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.2e}")


def table(rows: dict[str, Row]) -> str:
    """The results as Markdown: what converts, where rounding decides, then what is refused and why."""
    lines = [
        "| model | parameters | conversion s | gradient | float64 | losses | movement |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, title in (("promised", "promised"), ("surprise", "not planned for")):
        lines.append(f"| **{title}** | | | | | | |")
        lines += [_line(name, r) for name, r in rows.items() if r["kind"] == kind and "gradient" in r]
    lines += ["", *_beside([(name, r) for name, r in rows.items() if r.get("own_moved") is not None])]
    refused = [f"| {name} | {_cell(r['message'])} |" for name, r in rows.items() if "message" in r]
    return "\n".join([*lines, "", "| refused | message |", "|---|---|", *refused])


def _line(name: str, r: Row) -> str:
    shown = [_number(r[key]) for key in ("gradient", "double", "losses")]
    return (
        f"| {name} | {r['parameters']:,} | {r['seconds']:.1f} | {' | '.join(shown)} | {_number(r['moved'])} |"
    )


def _beside(rows: list[tuple[str, Row]]) -> list[str]:
    """Networks beyond a bound: the step beside the framework's own float32, and gradients on the path."""
    keys = ("gradient", "own_gradient", "moved", "own_moved", "along")
    head = [
        "| beyond a bound | gradient | framework's | movement | framework's | along the path, float64 |",
        "|---|---|---|---|---|---|",
    ]
    return head + [f"| {name} | {' | '.join(_number(r[key]) for key in keys)} |" for name, r in rows]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0e}"


def _cell(message: str) -> str:
    return message.replace("|", "\\|").replace("\n", " ")


def write_page(rows: dict[str, Row]) -> None:
    """Replace the table between the markers of docs/models.md."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="names of models")
    parser.add_argument("--table", action="store_true", help="measure nothing, rewrite the table of the docs")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")  # the frameworks' own
    known = entries()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in [] if options.table else options.only or known:
        rows[name] = row(*known[name])
        print(name, json.dumps(rows[name]), flush=True)
        rows = {n: rows[n] for n in known if n in rows}
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    write_page(rows)
    return int(any(r["outcome"] in ("failed", "wrong") for r in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
