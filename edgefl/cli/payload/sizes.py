# SPDX-License-Identifier: Apache-2.0
"""The sizes of one model's updates as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgefl.cli.figures import MUTED, finish, in_bytes, new_figure, style
from edgefl.cli.output import size
from edgefl.cli.payload.plan import Assumptions, DownRow, Row

_UP, _DOWN = "#2a9d8f", "#7a8794"


def draw(ups: Sequence[Row], downs: Sequence[DownRow], month: Assumptions, name: str, path: Path) -> None:
    """Bars of bytes per round on a log scale, smallest above, 1600 pixels wide."""
    bars = sorted(
        [(f"up: {r.name}", r.bytes_up, r.month_up, _UP) for r in ups]
        + [(f"down: {r.what}", r.bytes, r.month, _DOWN) for r in downs],
        key=lambda bar: -bar[1],
    )
    figure = new_figure((10, 1.4 + 0.3 * len(bars)))
    axes = figure.subplots()
    style(axes, f"bytes per round, and per month of {month.rounds} rounds (log scale)", "")
    axes.barh([b[0] for b in bars], [b[1] for b in bars], color=[b[3] for b in bars], height=0.7)
    for row, (_, count, total, _) in enumerate(bars):
        text = f"  {size(count)}   {size(total)}/month"
        axes.text(count, row, text, va="center", fontsize=8, color=MUTED)
    axes.set_xscale("log")
    axes.set_xlim(right=40 * bars[0][1])
    in_bytes(axes.xaxis)
    axes.grid(axis="y", visible=False)
    finish(figure, path, f"What {name} sends")
