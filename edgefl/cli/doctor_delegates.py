# SPDX-License-Identifier: Apache-2.0
"""What `edgefl doctor` says about delegates: which load here, and which would run a bundle's graphs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgefl.cli.output import print_line, print_rows
from edgefl.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefl.bundle import Bundle
    from edgefl.runtime.delegates import Placement
    from edgefl.runtime.delegates.survey import Row


def delegate_rows() -> list[Row]:
    """Every delegate and execution provider edgefl knows, as this machine has it."""
    from edgefl.runtime.delegates.survey import survey

    return survey()


def placement_rows(bundle: Bundle) -> list[dict[str, Any]]:
    """Where `delegate="auto"` would run each graph of a bundle, on every engine that has its artifacts."""
    return [row for engine in ("onnx", "tflite") for row in _engine(bundle, engine)]


def show_delegates(rows: list[Row]) -> None:
    """One table of what is here, one of what is not and how to get it; each reason is said once."""
    here = [(r.engine, r.delegate, r.drives, r.state, r.why) for r in rows if r.state != "absent"]
    print_rows("Delegates here", ["engine", "delegate", "for", "state", "by"], here)
    absent = [(r.engine, r.delegate, r.drives, r.advice) for r in rows if r.state == "absent" and r.advice]
    if absent:
        print_rows("Delegates this machine lacks", ["engine", "delegate", "for", "to get it"], absent)
    unreachable: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.state == "absent" and not row.advice:
            unreachable.setdefault((row.engine, row.why), []).append(row.delegate)
    for (engine, why), names in unreachable.items():
        print_line(f"{engine}: {', '.join(names)}: {why}")


def show_placements(rows: list[dict[str, Any]]) -> None:
    """One table of what would run, then what was passed over and why."""
    print_rows(
        "Graphs of this bundle",
        ["engine", "graph", "runs on", "operators", "left to cpu", "parts"],
        [
            [
                "-" if row.get(k) is None else row[k]
                for k in ("engine", "graph", "delegate", "operators", "fell_back", "partitions")
            ]
            for row in rows
        ],
    )
    for row in rows:
        for verdict in row["tried"]:
            print_line(
                f"{row['engine']}: {verdict['delegate']} is passed over for {row['graph']}: "
                f"{verdict['state']}, {verdict['reason']}"
            )


def placement_row(placement: Placement) -> dict[str, Any]:
    """A placement as JSON says it."""
    return {**asdict(placement), "fell_back": placement.fell_back}


def _engine(bundle: Bundle, engine: str) -> Iterator[dict[str, Any]]:
    from edgefl.runtime import open_backend
    from edgefl.runtime.delegates import Placement

    try:
        backend = open_backend(bundle, engine)
    except BackendError:
        return
    for kind in (a.kind for a in bundle.manifest.artifacts if a.target == engine):
        if kind == "infer-int8":
            continue
        try:
            program = backend.load(bundle, kind)
        except BackendError:
            continue  # said where the bundle's files are listed
        yield {"engine": engine} | placement_row(getattr(program, "placement", Placement(kind)))
