# SPDX-License-Identifier: Apache-2.0
"""What commands print: a table for people, JSON for scripts, progress for long work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def print_json(value: object) -> None:
    """One JSON object on standard output, as scripts expect it."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_plain))


def print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table whose columns of numbers are right-aligned."""
    out.print(table(title, columns, rows))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    from rich.table import Table as RichTable

    kept = [list(row) for row in rows]
    made = RichTable(title=title or None, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(kept) and all(isinstance(row[i], int | float) for row in kept)
        made.add_column(column, justify="right" if numeric else "left")
    for row in kept:
        made.add_row(*(_cell(value) for value in row))
    return made


def size(count: float) -> str:
    """Bytes as people read them: 812 B, 13.4 kB, 2.1 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{int(count)} B"


@contextmanager
def progress(label: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; yields a function that advances it by a number of steps."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=quiet) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(value: Any) -> object:
    """NumPy scalars, paths and the like as JSON knows them."""
    return value.item() if hasattr(value, "item") else str(value)
