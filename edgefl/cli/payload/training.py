# SPDX-License-Identifier: Apache-2.0
"""`edgefl bench payload --train`: accuracy against bytes, every mode on three tasks."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgefl import __version__
from edgefl.cli.output import print_json, print_line, print_rows, progress, size
from edgefl.cli.payload import pictures, summary
from edgefl.cli.payload.journal import Journal, complete
from edgefl.cli.payload.runs import COHORT, EVERY, LAST, MANY, Curve, Run, Way, grid, quick_grid
from edgefl.cli.payload.sockets import Overhead, measure
from edgefl.cli.payload.summary import Row, Verdict
from edgefl.cli.payload.tasks import TASKS, bundle
from edgefl.delta import MODES
from edgefl.errors import DataError

_MEASURED = "digits"
RUNS, RESULTS = "runs.jsonl", "curves.json"


def compare(
    out: Path, *, quick: bool = False, finished: bool = False, as_json: bool = False
) -> dict[str, Any]:
    """Train what is not trained yet, then tell and draw.

    Args:
        out: folder for `runs.jsonl`, which is added to, and for `curves.json` and the pictures.
        quick: a small part of the runs.
        finished: train nothing, tell of the runs that are there.

    Raises:
        DataError: no run is finished.
    """
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / RUNS)
    runs = quick_grid() if quick else grid()
    if finished:
        runs = [run for run in runs if run.key in journal.curves]
    if not runs:
        raise DataError(f"{journal.path} has no finished run to tell of")
    with progress("runs", len(runs), quiet=as_json) as advance:
        curves = complete(journal, runs, advance)
    return report(out, list(zip(runs, curves, strict=True)), as_json=as_json)


def report(out: Path, done: Sequence[tuple[Run, Curve]], *, as_json: bool = False) -> dict[str, Any]:
    """Tables, pictures and `curves.json` of finished runs."""
    overheads = measured_overheads(dict.fromkeys(run.way for run, _ in done))
    rows = summary.rows(done, overheads)
    verdicts = summary.verdicts(rows)
    made = _document(done, overheads, rows, verdicts)
    (out / RESULTS).write_text(json.dumps(made, indent=1) + "\n")
    made["pictures"] = [str(path) for path in _draw(rows, out)]
    if as_json:
        print_json(made)
    else:
        _show(rows, verdicts, overheads)
        print_line("Pictures    " + ", ".join(made["pictures"]))
    return made


def measured_overheads(ways: Mapping[Way, None]) -> dict[str, Overhead]:
    """What HTTP adds, once for every mode that a server can ask for."""
    task = TASKS[_MEASURED]
    made = bundle(task, 0)
    devices = dict(list(task.devices(MANY, False, 0).items())[:2])
    first = {way.mode: way for way in reversed(list(ways)) if way.mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        return {mode: measure(way, made, devices, Path(folder) / mode) for mode, way in first.items()}


def _document(
    done: Sequence[tuple[Run, Curve]],
    overheads: Mapping[str, Overhead],
    rows: Sequence[Row],
    verdicts: Sequence[Verdict],
) -> dict[str, Any]:
    return {
        "machine": {
            "edgefl": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
        },
        "cohort": COHORT,
        "devices_some": MANY,
        "accuracy_taken": {"every": EVERY, "last": LAST},
        "tasks": {
            name: {
                "model": task.model,
                "measure": task.measure,
                "rounds": task.rounds,
                **asdict(task.training),
            }
            for name, task in TASKS.items()
        },
        "http": {mode: asdict(overhead) for mode, overhead in overheads.items()},
        "runs": len(done),
        "seconds": round(sum(curve.seconds for _, curve in done)),
        "rows": summary.as_json(rows),
        "goals": [
            {**asdict(v.setting), **{k: x for k, x in asdict(v).items() if k != "setting"}} for v in verdicts
        ],
    }


def _draw(rows: Sequence[Row], out: Path) -> list[Path]:
    made = []
    usual = [row for row in rows if row.setting.cohort == COHORT]
    for skewed, everyone in dict.fromkeys((r.setting.skewed, r.setting.everyone) for r in usual):
        name = f"payload-curves-{'skewed' if skewed else 'alike'}-{'all' if everyone else 'some'}.png"
        pictures.draw(usual, skewed, everyone, out / name)
        made.append(out / name)
    return made


def _show(rows: Sequence[Row], verdicts: Sequence[Verdict], overheads: Mapping[str, Overhead]) -> None:
    columns = ["sent as", "accuracy", "points lost", "a round", "x fewer", "seeds"]
    for setting in dict.fromkeys(row.setting for row in rows):
        title = f"{setting.task} ({TASKS[setting.task].model}), {setting.name}"
        print_rows(title, columns, [_cells(row) for row in rows if row.setting == setting])
    cells = [
        (
            v.setting.task,
            v.setting.name,
            f"{v.times} x, {v.points} points",
            v.way,
            round(v.times_fewer),
            v.lost,
            v.reached,
        )
        for v in verdicts
    ]
    goals = ["task", "setting", "goal", "best by", "x fewer", "points lost", "reached"]
    print_rows("At least so many times fewer bytes, at most so many points lost", goals, cells)
    for mode, overhead in overheads.items():
        print_line(f"HTTP adds {overhead.up:.0f} B up, {overhead.down:.0f} B down per round ({mode})")


def _cells(row: Row) -> tuple[object, ...]:
    lost = f"{row.lost:+.2f} ± {row.lost_spread:.2f}"
    return (
        row.way.name,
        f"{row.accuracy:.1f} ± {row.spread:.1f}",
        f"{row.diverged} of {row.seeds} diverged" if row.diverged else lost,
        size(row.bytes_up),
        f"{row.times_fewer:,.0f}",
        row.seeds,
    )
