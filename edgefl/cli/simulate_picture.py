# SPDX-License-Identifier: Apache-2.0
"""A simulation as a picture: loss and accuracy by round, and by bytes sent up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from edgefl.cli.figures import ACCENT, SECOND, finish, in_percent, style
from edgefl.cli.output import size
from edgefl.simulation import Simulated

Line = tuple[str, str, Sequence[float | None]]


def draw(figure: Any, done: Simulated, path: Path) -> None:
    """Write the picture as PNG; losses above, accuracy below where there is one."""
    rows = done.rounds
    losses = [
        ("training loss", ACCENT, [r.loss for r in rows]),
        ("test loss", SECOND, [r.test_loss for r in rows]),
    ]
    rates = [("test accuracy", SECOND, [None if r.accuracy is None else 100 * r.accuracy for r in rows])]
    shown = [[line for line in lines if any(v is not None for v in line[2])] for lines in (losses, rates)]
    shown = [lines for lines in shown if lines]
    numbers, sent = [r.round for r in rows], list(accumulate(r.bytes_up for r in rows))
    grid = figure.subplots(len(shown), 2, squeeze=False)
    for axes, lines in zip(grid, shown, strict=True):
        _plot(axes[0], lines, numbers, "round")
        _plot(axes[1], lines, sent, "sent up by all devices, HTTP included")
        axes[0].xaxis.get_major_locator().set_params(integer=True)
        axes[1].xaxis.set_major_formatter(lambda v, _: size(v))
    finish(figure, path)


def _plot(axes: Any, lines: Sequence[Line], across: Sequence[float], label: str) -> None:
    style(axes, ", ".join(name for name, _, _ in lines), label)
    for name, color, values in lines:
        pairs = [(x, y) for x, y in zip(across, values, strict=True) if y is not None]
        axes.plot(*zip(*pairs, strict=True), color=color, linewidth=1.8, marker="o", markersize=3, label=name)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    if lines[0][0].endswith("accuracy"):
        in_percent(axes.yaxis)
