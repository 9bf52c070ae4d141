# SPDX-License-Identifier: Apache-2.0
"""What commands print: a table for people, JSON for scripts, progress for long work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

from rich.console import Console
from rich.text import Text

from edgefl.plain import harmless as harmless
from edgefl.plain import print_json as print_json
from edgefl.plain import print_json_line as print_json_line
from edgefl.plain import print_line as print_line
from edgefl.plain import size as size

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_NUMBER = re.compile(r"-|[+-]?[\d.,]+(e[+-]?\d+)?( ?(%|B|kB|MB|GB|x))?")
_IDENTITY = re.compile(r"[0-9a-f]{16}")
"""Of a device; people copy it, so it stays on one line."""


def print_error(kind: str, message: str) -> None:
    """Why a command failed, on one line of standard error."""
    said = harmless(" ".join(message.split()))
    err.print(Text.assemble(("error", "bold red"), (f" ({kind}) ", "dim"), said), soft_wrap=True)


def print_warning(message: str) -> None:
    """What a command that goes on should not leave unsaid, on one line of standard error."""
    err.print(Text.assemble(("warning", "bold yellow"), " ", harmless(message)), soft_wrap=True)


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table whose columns of numbers are right-aligned, set off by blank lines."""
    out.print()
    out.print(table(title, columns, rows))
    out.print()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Rows under a title; long text wraps, numbers and identities stay whole."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    kept = [[harmless(_cell(value)) for value in row] for row in rows]
    made = RichTable(
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for i, column in enumerate(columns):
        numeric = bool(kept) and all(_NUMBER.fullmatch(row[i]) for row in kept)
        whole = numeric or (bool(kept) and all(_IDENTITY.fullmatch(row[i]) for row in kept))
        made.add_column(Text(column), justify="right" if numeric else "left", no_wrap=whole, overflow="fold")
    for row in kept:
        made.add_row(*map(Text, row))
    return made


@contextmanager
def progress(label: str, total: int, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields `advance(steps, note="")`, the note shown after the label."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet or not err.is_terminal) as bar:
        task = bar.add_task(label, total=total)

        def advance(steps: int, note: str = "") -> None:
            bar.update(task, advance=steps, description=f"{label} {note}" if note else label)

        yield advance


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
