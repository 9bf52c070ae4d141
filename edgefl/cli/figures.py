# SPDX-License-Identifier: Apache-2.0
"""How the pictures of all commands look."""

from __future__ import annotations

from typing import Any

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
