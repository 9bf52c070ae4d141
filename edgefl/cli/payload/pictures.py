# SPDX-License-Identifier: Apache-2.0
"""The curves as pictures: accuracy by round, and by bytes sent up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgefl.cli.figures import INK, finish, in_bytes, in_percent, new_figure, style
from edgefl.cli.payload.runs import DENSE, Way
from edgefl.cli.payload.summary import Row, Setting
from edgefl.cli.payload.tasks import TASKS

SHOWN: tuple[tuple[Way, str, str], ...] = (
    (DENSE, "#1b2733", "-"),
    (Way("dense8"), "#8a6d3b", "-"),
    (Way("subset", 0.1), "#9b59b6", "-"),
    (Way("topk", 0.01), "#d1495b", "-"),
    (Way("unbiased", 0.01), "#7fc8c2", "-"),
    (Way("unbiased", 0.003), "#2a9d8f", "-"),
    (Way("unbiased", 0.001), "#0b5e58", "-"),
)


def draw(rows: Sequence[Row], skewed: bool, everyone: bool, path: Path) -> None:
    """Write one picture of all tasks in one setting, 1600 x 1050 pixels."""
    figure = new_figure((10, 6.6))
    chosen = [r for r in rows if (r.setting.skewed, r.setting.everyone) == (skewed, everyone) and r.curves]
    tasks = [name for name in TASKS if any(r.setting.task == name for r in chosen)]
    grid = figure.subplots(2, len(tasks), squeeze=False)
    for column, name in enumerate(tasks):
        mine = {r.way: r for r in chosen if r.setting.task == name}
        # Lines can be compared where they are of the same seeds.
        seeds = set.intersection(*(set(mine[way].curves) for way, _, _ in SHOWN if way in mine))
        _by_round(grid[0][column], mine, seeds, f"{name}: {TASKS[name].measure}")
        _by_bytes(grid[1][column], mine, seeds)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
    heading = f"Accuracy by round, and by bytes sent up ({Setting('', skewed, everyone).name})"
    finish(figure, path, heading, below=0.08, above=0.96)


def _by_round(axes: Any, rows: dict[Way, Row], seeds: set[int], title: str) -> None:
    style(axes, title, "round")
    for way, color, line in SHOWN:
        if way in rows and seeds:
            numbers, values = zip(*rows[way].curve(seeds), strict=True)
            axes.plot(numbers, values, line, color=color, linewidth=1.8, label=way.name)
    in_percent(axes.yaxis)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _by_bytes(axes: Any, rows: dict[Way, Row], seeds: set[int]) -> None:
    style(axes, "", "sent up per place (log scale)")
    for way, color, line in SHOWN:
        if way in rows and seeds:
            numbers, values = zip(*rows[way].curve(seeds), strict=True)
            axes.plot([n * rows[way].bytes_up for n in numbers], values, line, color=color, linewidth=1.8)
    axes.set_xscale("log")
    in_bytes(axes.xaxis)
    in_percent(axes.yaxis)
