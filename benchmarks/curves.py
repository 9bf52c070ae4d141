# SPDX-License-Identifier: Apache-2.0
"""Accuracy against bytes: three tasks, every mode, three seeds.

    python -m benchmarks.curves [--out FOLDER] [--finished] [--keep] [--json]

The same as `edgefl bench payload --train`, which it calls; about an hour on one core. Runs are kept in
`FOLDER/runs.jsonl` as they finish and not trained again. `--finished` tells of those that are there. `--keep`
writes `benchmarks/results/curves.json`, the pictures in `docs/images` and the tables of `docs/payload.md`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables import between, markdown
from edgefl.cli.payload.training import compare

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "curves.json"
DOCS = ROOT / "docs" / "payload.md"
IMAGES = ROOT / "docs" / "images"

Row = dict[str, Any]


def goals(found: Row) -> str:
    """Whether the goals are reached, setting by setting."""
    lines = [
        [
            goal["task"],
            _setting(goal),
            f"{goal['times']} x, {goal['points']:g} points",
            goal["way"],
            f"{goal['times_fewer']:,.0f}",
            f"{goal['lost']:+.2f}",
            "yes" if goal["reached"] else "**no**",
        ]
        for goal in found["goals"]
    ]
    head = ["task", "devices", "goal", "best by", "x fewer bytes", "points lost", "reached"]
    return markdown(head, lines, left=4)


def settings(found: Row) -> str:
    """One table per setting: ways of sending down, tasks across."""
    rows = found["rows"]
    kinds = dict.fromkeys(map(_kind, rows))
    return "\n\n".join(_table([row for row in rows if _kind(row) == kind]) for kind in kinds)


def _kind(row: Row) -> tuple[bool, bool, int]:
    return row["skewed"], row["everyone"], row["cohort"]


def _table(rows: Sequence[Row]) -> str:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    by_name = {(row["way"], row["task"]): row for row in rows}
    lines = [
        [way, *(cell for task in tasks for cell in _cells(by_name.get((way, task))))]
        for way in dict.fromkeys(row["way"] for row in rows)
    ]
    head = ["sent as", *(cell for task in tasks for cell in (f"{task}: accuracy", "points lost", "x fewer"))]
    return f"*{_setting(rows[0])}*\n\n{markdown(head, lines)}"


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    if row["diverged"]:
        return [f"{row['diverged']} of {row['seeds']} diverged", "", f"{row['times_fewer']:,.0f}"]
    several = row["seeds"] > 1
    mark = "" if row["seeds"] == 3 else f" ({row['seeds']} seed{'s' * several})"
    accuracy = f"{row['accuracy']:.1f}" + (f" ± {row['spread']:.1f}" if several else "")
    lost = f"{row['lost']:+.2f}" + (f" ± {row['lost_spread']:.2f}" if several else "")
    return [accuracy + mark, lost if row["way"] != "float32" else "", f"{row['times_fewer']:,.0f}"]


def _setting(row: Row) -> str:
    data = "non-IID" if row["skewed"] else "IID"
    devices = f"all {row['cohort']} devices" if row["everyone"] else f"{row['cohort']} of 100 devices"
    return f"{data}, {devices} per round"


def keep(found: Row, out: Path) -> None:
    """Results, pictures and tables to where the docs have them."""
    pictures: Iterable[str] = found["pictures"]
    RESULTS.write_text((out / "curves.json").read_text())
    for picture in pictures:
        shutil.copy(picture, IMAGES / Path(picture).name)
    text = between(DOCS.read_text(), "goals", goals(found))
    DOCS.write_text(between(text, "curves", settings(found)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("payload-out"), help="folder for runs and pictures")
    parser.add_argument("--finished", action="store_true", help="train nothing, tell what is there")
    parser.add_argument("--keep", action="store_true", help="write results, pictures and the docs' tables")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    found = compare(options.out, finished=options.finished, as_json=options.json)
    if options.keep:
        keep(json.loads(json.dumps(found)), options.out)


if __name__ == "__main__":
    main()
