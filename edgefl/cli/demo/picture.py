# SPDX-License-Identifier: Apache-2.0
"""The picture of a federated run: accuracy by round, and bytes by round against sending it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefl.cli.figures import ACCENT, MUTED, SECOND, finish, new_figure, style
from edgefl.cli.output import size


@dataclass(frozen=True)
class Curves:
    """What the picture shows.

    Attributes:
        accuracy: held-out accuracy after each round, first round first.
        final: of the final model, the mean of the last rounds' models.
        central: accuracy of the same model trained on all data in one place.
        bytes_up: bytes all devices sent in each round, counted at the server's socket.
        dense_up: bytes the same devices would send as dense float32.
    """

    title: str
    accuracy: Sequence[float]
    final: float
    central: float
    bytes_up: Sequence[int]
    dense_up: int


def draw(curves: Curves, path: Path) -> None:
    """Write the picture as PNG, 1600 x 700 pixels."""
    figure = new_figure((10, 4.4))
    left, right = figure.subplots(1, 2)
    _accuracy(left, curves)
    _bytes(right, curves)
    finish(figure, path, curves.title, above=0.95)


def _accuracy(axes: Any, curves: Curves) -> None:
    rounds = range(1, len(curves.accuracy) + 1)
    style(axes, "accuracy on people never seen in training", "round")
    axes.axhline(curves.central, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.plot(rounds, curves.accuracy, color=ACCENT, linewidth=0.7, alpha=0.4)
    axes.plot(rounds, _running_mean(curves.accuracy), color=ACCENT, linewidth=2.2)
    axes.plot([len(curves.accuracy)], [curves.final], "o", color=ACCENT, markersize=6)
    central_above = curves.central >= curves.final
    for value, text, color, above in (
        (curves.central, f"all data in one place: {curves.central:.1%}", MUTED, central_above),
        (curves.final, f"federated: {curves.final:.1%}", ACCENT, not central_above),
    ):
        axes.annotate(
            text,
            (len(curves.accuracy), value),
            xytext=(-4, 6 if above else -22),
            textcoords="offset points",
            ha="right",
            color=color,
            fontsize=9,
        )
    axes.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.set_ylim(min(0.0, *curves.accuracy), 1.0)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean over the last few rounds up to each."""
    width = max(1, len(values) // 40)
    return [sum(values[max(0, i - width) : i]) / min(i, width) for i in range(1, len(values) + 1)]


def _bytes(axes: Any, curves: Curves) -> None:
    rounds = range(1, len(curves.bytes_up) + 1)
    style(axes, "upload per round, all devices (log scale)", "round")
    axes.fill_between(rounds, curves.bytes_up, step="mid", color=ACCENT, linewidth=0)
    axes.axhline(curves.dense_up, color=SECOND, linewidth=1.6)
    axes.set_yscale("log")
    axes.minorticks_off()
    mean = sum(curves.bytes_up) / max(len(curves.bytes_up), 1)
    axes.set_ylim(mean / 8, curves.dense_up * 4)
    axes.yaxis.set_major_formatter(lambda v, _: size(v))
    ratio = curves.dense_up / max(mean, 1)
    for value, text, color in (
        (curves.dense_up, f"dense float32: {size(curves.dense_up)}", SECOND),
        (mean, f"sent: {size(mean)} on average, {ratio:.0f} x less", ACCENT),
    ):
        place = {"xytext": (2, 7), "textcoords": "offset points"}
        axes.annotate(text, (rounds[0], value), color=color, fontsize=9, **place)
