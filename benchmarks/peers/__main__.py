# SPDX-License-Identifier: Apache-2.0
"""Bytes of the same real updates, as others would send them.

    python -m benchmarks.peers [--offline] [--keep] [--json] [--update NAME ...]

Updates are those of `benchmarks.deltas`. Flower and NVIDIA FLARE are installed from PyPI into environments
that are removed at the end (versions in `constraints/peers.txt`); `--offline` leaves them out. The others are
written down from their papers with the bit streams they describe; every one is decoded again, and NMSE is the
squared error of what arrives over the squared length of the update. Methods that rely on feedback over rounds
(STC, 3LC, signSGD, PowerSGD, top-k) repair much of that error later. `--keep` writes
`benchmarks/results/peers.json` and the table of `docs/payload.md`.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deltas import NAMED_UPDATES
from benchmarks.peers import dense, plain, released, sparse
from benchmarks.peers.codec import Arrays, Measured, measure
from benchmarks.tables import between, markdown
from edgefl.errors import MissingDependency

RESULTS = Path(__file__).parents[1] / "results" / "peers.json"
DOCS = Path(__file__).parents[2] / "docs" / "payload.md"
SHOWN = ("LSTM language model", "MobileNetV2")
"""Updates in the table of the docs; the others are in the JSON."""

CODECS = (*plain.CODECS, *dense.CODECS, *sparse.CODECS, *plain.OURS)


def updates(names: Sequence[str]) -> dict[str, Arrays]:
    """Real updates by name; those whose data are not installed are left out, and said so."""
    made: dict[str, Arrays] = {}
    for name in names:
        try:
            made[name] = NAMED_UPDATES[name]()
        except (ImportError, MissingDependency) as exc:
            print(f"left out: {name} ({exc})", file=sys.stderr)
    return made


def compare(given: Mapping[str, Arrays], *, offline: bool) -> list[Measured]:
    """Everything on every update, the largest messages first."""
    rows = [measure(name, update, codec) for name, update in given.items() for codec in CODECS]
    if not offline:
        rows += _released(given)
    order = list(given)
    return sorted(rows, key=lambda row: (order.index(row.data), -row.bytes))


def _released(given: Mapping[str, Arrays]) -> list[Measured]:
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{i}.npz" for i, name in enumerate(given)}
        for name, path in files.items():
            np.savez(path, **given[name])
        sizes = {name: sum(v.size for v in update.values()) for name, update in given.items()}
        for name, framework in released.FRAMEWORKS.items():
            try:
                rows += released.measure(framework, files, sizes, Path(folder) / name)
            except subprocess.CalledProcessError as exc:
                print(f"left out: {name} ({exc})", file=sys.stderr)
    return rows


def report(rows: Sequence[Measured]) -> dict[str, Any]:
    """As it is kept."""
    machine = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
    return {"machine": machine, "rows": [asdict(row) for row in rows]}


def table(rows: Sequence[Measured], shown: Sequence[str]) -> str:
    """One line per way of sending, columns for each update shown."""
    found = {(row.name, row.data): row for row in rows}
    names = dict.fromkeys(row.name for row in rows if row.data == shown[0])
    sources = {row.name: row.source for row in rows}
    head = ["sent as", "from"]
    for name in shown:
        head += [f"{name}: bytes", "x smaller", "NMSE", "encode ms"]
    lines = []
    for name in names:
        cells = [name, sources[name]]
        for data in shown:
            row = found.get((name, data))
            cells += _cells(row) if row else ["-"] * 4
        lines.append(cells)
    return markdown(head, lines, left=2)


def _cells(row: Measured) -> list[str]:
    times = f"{row.times_smaller:.1f}" if row.times_smaller < 100 else f"{row.times_smaller:,.0f}"
    return [f"{row.bytes:,}", times, f"{row.nmse:.2g}", f"{row.encode_ms:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--offline", action="store_true", help="without the frameworks from PyPI")
    parser.add_argument("--update", action="append", choices=list(NAMED_UPDATES), help="only these updates")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.name} and the docs' table")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    given = updates(options.update or list(NAMED_UPDATES))
    rows = compare(given, offline=options.offline)
    if options.keep:
        RESULTS.write_text(json.dumps(report(rows), indent=1) + "\n")
        shown = [name for name in SHOWN if name in given]
        DOCS.write_text(between(DOCS.read_text(), "peers", table(rows, shown)))
    print(json.dumps(report(rows)) if options.json else "\n\n".join(table(rows, [name]) for name in given))


if __name__ == "__main__":
    main()
