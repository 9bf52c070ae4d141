# SPDX-License-Identifier: Apache-2.0
"""How the pictures of all commands look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgefl.cli.output import size
from edgefl.errors import MissingDependency

INK, MUTED, ACCENT, SECOND = "#1b2733", "#7a8794", "#0b7a75", "#d1495b"


def new_figure(inches: tuple[float, float]) -> Any:
    """An empty white figure; MissingDependency without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingDependency("matplotlib", "", "drawing the picture") from exc
    figure = Figure(figsize=inches, dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style(axes: Any, title: str, label: str) -> None:
    """Light lines, no frame."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(label, color=MUTED, fontsize=9)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.grid(color="#e6eaee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def finish(figure: Any, path: Path, title: str = "", *, below: float = 0.0, above: float = 1.0) -> None:
    """Write a figure as PNG.

    Args:
        title: of the whole.
        below, above: where what is not title or legend begins and ends, from 0 to 1 upwards.
    """
    if title:
        figure.suptitle(title, x=0.02, ha="left", color=INK, fontsize=12, fontweight="bold")
    figure.tight_layout(rect=(0, below, 1, above))
    figure.savefig(path, format="png")


def in_bytes(axis: Any) -> None:
    """Ticks as sizes, on a logarithmic scale."""
    axis.axes.minorticks_off()
    axis.set_major_formatter(lambda value, _: size(value).replace(".0", ""))


def in_percent(axis: Any) -> None:
    """Ticks as percentages of values from 0 to 100."""
    axis.set_major_formatter(lambda value, _: f"{value:g} %")
