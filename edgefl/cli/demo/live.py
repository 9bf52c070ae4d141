# SPDX-License-Identifier: Apache-2.0
"""The live table of a federation: a row per round, a progress bar below."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from edgefl.cli.output import err, size

SHOWN = 15  # newest rounds on screen; the summary has them all
COLUMNS = ("round", "devices", "loss", "held-out accuracy", "up", "down", "x smaller than dense")


@dataclass(frozen=True)
class Row:
    """One closed round.

    Attributes:
        devices: that took part.
        bytes_up, bytes_down: everything that crossed the server's socket, HTTP headers and polling included.
        bytes_dense: what the same devices would send as dense float32 without any HTTP around it.
    """

    round: int
    devices: int
    loss: float
    accuracy: float
    bytes_up: int
    bytes_down: int
    bytes_dense: int

    def cells(self) -> list[str]:
        ratio = self.bytes_dense / max(self.bytes_up, 1)
        return [
            str(self.round),
            str(self.devices),
            f"{self.loss:.3f}",
            f"{self.accuracy:.1%}",
            size(self.bytes_up),
            size(self.bytes_down),
            f"{ratio:.0f}",
        ]


class Board:
    """Rows so far, drawn again with each new one; plain lines where there is no terminal."""

    def __init__(self, rounds: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=err)
        self._task = self._progress.add_task("rounds", total=rounds)
        self._rows: list[Row] = []
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[Board]:
        if not err.is_terminal:
            err.print("  ".join(COLUMNS))
            yield self
            return
        with Live(self._drawing(), console=err, refresh_per_second=4) as self._live:
            yield self

    def add(self, row: Row) -> None:
        self._rows.append(row)
        self._progress.advance(self._task)
        if self._live is None:
            err.print("  ".join(row.cells()))
        else:
            self._live.update(self._drawing())

    def _drawing(self) -> Group:
        table = Table(header_style="bold")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for row in self._rows[-SHOWN:]:
            table.add_row(*row.cells())
        return Group(table, self._progress)
