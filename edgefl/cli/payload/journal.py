# SPDX-License-Identifier: Apache-2.0
"""Curves on disk, one JSON object per line: what is there already is not trained again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgefl.cli.payload.runs import Curve, Run, execute
from edgefl.errors import DataError
from edgefl.strictjson import parse


class Journal:
    """An append-only file of curves; a line that was cut off when a run was stopped is written over."""

    def __init__(self, path: Path) -> None:
        """Read what is there; DataError where that is something else."""
        self.path = path
        self.curves: dict[str, Curve] = {}
        if not path.exists():
            return
        kept = 0
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            curve = _curve(line, path)
            self.curves[curve.key] = curve
            kept += len(line)
        with path.open("rb+") as file:
            file.truncate(kept)

    def add(self, curve: Curve) -> None:
        """Keep a curve, on disk before this returns."""
        self.curves[curve.key] = curve
        with self.path.open("a") as file:
            file.write(json.dumps(vars(curve)) + "\n")


def complete(journal: Journal, runs: Iterable[Run], on_run: Callable[[int], None]) -> list[Curve]:
    """The curves of all runs, training those that the journal lacks; `on_run` is told of each."""
    curves = []
    for run in runs:
        if run.key not in journal.curves:
            journal.add(execute(run))
        curves.append(journal.curves[run.key])
        on_run(1)
    return curves


def _curve(line: bytes, path: Path) -> Curve:
    where = f"a line of {path}"
    try:
        value: Any = parse(line, DataError, where)
        pairs = tuple((int(number), float(accuracy)) for number, accuracy in value["accuracy"])
        return Curve(
            key=str(value["key"]),
            parameters=int(value["parameters"]),
            accuracy=pairs,
            frame_bytes=tuple(map(float, value["frame_bytes"])),
            diverged=bool(value["diverged"]),
            seconds=float(value["seconds"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise DataError(f"{where} is no curve of this command: {exc!r}") from exc
