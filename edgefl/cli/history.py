# SPDX-License-Identifier: Apache-2.0
"""`edgefl history`: the rounds of a server as a table for other programs."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefl.cli.options import AdminFile, AsJson, ServerUrl, check_folder, reached
from edgefl.cli.output import print_json
from edgefl.options import ReachOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefl.wire import EvaluationInfo, RoundInfo

COLUMNS = (
    "round", "state", "base_version", "version", "goal", "minimum", "assigned", "declined", "updates",
    "bounded", "refused", "refused_for", "loss", "evaluated_by", "evaluation_examples", "evaluation_loss",
    "evaluation_median_loss", "evaluation_accuracy", "extensions", "opened_at", "closed_at", "seconds",
    "frame_bytes", "bytes_up", "bytes_down",
)  # fmt: skip


def history(
    server: ServerUrl,
    reach: ReachOptions,
    output: Annotated[
        Path | None, typer.Option("--csv", help="Write a file. Default: standard output.", dir_okay=False)
    ] = None,
    admin_file: AdminFile = None,
    as_json: AsJson = False,
) -> None:
    """Every round of a server, one line of CSV each, with what came of the version it made.

    Moments are seconds since 1970-01-01 UTC; what is not known is empty. --json has the same as one object.
    """
    from edgefl.files import write_atomically
    from edgefl.runtime.remote import Remote

    check_folder(output)
    with reached(server, reach, admin_file) as transport:
        remote = Remote(transport)
        rows = table(remote.rounds(), remote.evaluations())
    if output is not None:
        write_atomically(output, as_csv(rows).encode())
    if as_json:
        print_json({"rounds": rows, "csv": output})
    elif output is None:
        typer.echo(as_csv(rows), nl=False)


def table(rounds: Sequence[RoundInfo], evaluations: Sequence[EvaluationInfo]) -> list[dict[str, Any]]:
    """One row of `COLUMNS` for each round; evaluations are of the version a round made."""
    measured = {each.version: each for each in evaluations}
    return [_row(info, measured.get(-1 if info.version is None else info.version)) for info in rounds]


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with their names on the first line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(info: RoundInfo, found: EvaluationInfo | None) -> dict[str, Any]:
    row = {name: getattr(info, name, None) for name in COLUMNS}
    row["refused"] = sum(each.count for each in info.refused)
    row["refused_for"] = " ".join(f"{each.reason}={each.count}" for each in info.refused)
    row["seconds"] = None if info.closed_at is None else info.closed_at - info.opened_at
    if found is not None:
        row["evaluated_by"], row["evaluation_examples"] = found.devices, found.examples
        row["evaluation_loss"], row["evaluation_median_loss"] = found.loss, found.median_loss
        row["evaluation_accuracy"] = found.accuracy
    return row
