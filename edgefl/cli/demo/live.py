# SPDX-License-Identifier: Apache-2.0
"""The live line of a federation: one bar with the newest round's figures beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edgefl.cli.output import err, size

LINES = 10
"""Where there is no terminal, lines printed over the whole run."""


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

    def __str__(self) -> str:
        ratio = self.bytes_dense / max(self.bytes_up, 1)
        return (
            f"loss {self.loss:.3f}, held-out accuracy {self.accuracy:.1%}, {self.devices} devices sent "
            f"{size(self.bytes_up)}, {ratio:.0f} x less than dense"
        )


class Board:
    """The line, drawn again with each round; a few plain lines where there is no terminal."""

    def __init__(self, rounds: int) -> None:
        columns = (
            TextColumn("rounds"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}"),
        )
        self._progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
        self._task = self._progress.add_task("", total=rounds)
        self._rounds = rounds
        self._every = max(1, rounds // LINES)

    @contextmanager
    def shown(self) -> Iterator[Board]:
        with self._progress:
            yield self

    def add(self, row: Row) -> None:
        self._progress.update(self._task, advance=1, description=str(row))
        if not err.is_terminal and (row.round == 1 or row.round % self._every == 0):
            err.print(f"round {row.round} of {self._rounds}: {row}", soft_wrap=True)
