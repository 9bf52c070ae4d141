# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG, made here: no script draws them and no other machine is asked. Colours are the style's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 8, 22
_MOST = 120
"""Points or bars; more rounds than that are taken together."""

Text = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One line, or one part of every bar.

    Attributes:
        name: for the legend.
        values: one for each place of the axis, None where there is none.
    """

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Axis:
    """The places of a chart: numbers of rounds or versions, and what they are called."""

    places: Sequence[int]
    name: str


def lines(axis: Axis, series: Sequence[Series], said: Text, *, logarithmic: bool = False) -> Markup:
    """One line per series."""
    axis, series = _thinned(axis, series, _mean)
    known = [v for s in series for v in s.values if v is not None and math.isfinite(v)]
    scale = _Scale.logarithmic(known) if logarithmic else _Scale.linear(known)
    drawn = [_line(axis, s, number, scale, said) for number, s in enumerate(series, 1)]
    return _svg(axis, series, scale, said, drawn)


def bars(axis: Axis, series: Sequence[Series], said: Text) -> Markup:
    """One bar per place, its parts on top of one another."""
    axis, series = _thinned(axis, series, _mean)
    sums = [sum(s.values[i] or 0.0 for s in series) for i in range(len(axis.places))]
    scale = _Scale.linear([0.0, *sums])
    wide = (WIDTH - _LEFT - _RIGHT) / max(1, len(axis.places))
    drawn = []
    for i, place in enumerate(axis.places):
        below = 0.0
        for number, s in enumerate(series, 1):
            value = s.values[i] or 0.0
            if value > 0:
                top, foot = scale.y(below + value), scale.y(below)
                title = f"{axis.name} {place}, {s.name}: {said(value)}"
                drawn.append(_bar(number, _LEFT + (i + 0.1) * wide, top, 0.8 * wide, foot - top, title))
                below += value
    return _svg(axis, series, scale, said, drawn)


@dataclass(frozen=True)
class _Scale:
    """From values to heights."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @staticmethod
    def linear(values: Sequence[float]) -> _Scale:
        low, high = min(values, default=0.0), max(values, default=1.0)
        if low > 0 and low < 0.6 * high:
            low = 0.0
        span = high - low or abs(high) or 1.0
        step = 10.0 ** math.floor(math.log10(span / 3))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 4)
        low, high = math.floor(low / step) * step, math.ceil((high or step) / step) * step
        high = high if high > low else low + step
        count = round((high - low) / step)
        return _Scale(low, high, tuple(low + i * step for i in range(count + 1)))

    @staticmethod
    def logarithmic(values: Sequence[float]) -> _Scale:
        good = [v for v in values if v > 0] or [1.0]
        low, high = math.floor(math.log10(min(good))), math.ceil(math.log10(max(good)))
        high = max(high, low + 1)
        every = math.ceil((high - low) / 5)
        ticks = tuple(10.0**power for power in range(low, high + 1, every))
        return _Scale(10.0**low, 10.0**high, ticks, log=True)

    def y(self, value: float) -> float:
        if self.log:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return HEIGHT - _BOTTOM - part * (HEIGHT - _TOP - _BOTTOM)


def _thinned(
    axis: Axis, series: Sequence[Series], one: Callable[[Sequence[float | None]], float | None]
) -> tuple[Axis, Sequence[Series]]:
    """At most so many places: neighbours become one, named by the last of them."""
    size = math.ceil(len(axis.places) / _MOST)
    if size <= 1:
        return axis, series
    starts = range(0, len(axis.places), size)
    places = [axis.places[min(i + size, len(axis.places)) - 1] for i in starts]
    return Axis(places, axis.name), [
        Series(s.name, [one(s.values[i : i + size]) for i in starts]) for s in series
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _x(axis: Axis, i: int) -> float:
    return _LEFT + (i + 0.5) / len(axis.places) * (WIDTH - _LEFT - _RIGHT)


def _bar(number: int, x: float, y: float, width: float, height: float, title: str) -> Markup:
    return Markup(
        '<rect class="b{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(number, x, y, width, height, title)


def _line(axis: Axis, series: Series, number: int, scale: _Scale, said: Text) -> Markup:
    points = [(_x(axis, i), scale.y(v), i, v) for i, v in enumerate(series.values) if v is not None]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    radius = 2.5 if len(points) <= 40 else 1.2
    dots = Markup("").join(
        Markup('<circle class="d{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
            number, x, y, radius, f"{axis.name} {axis.places[i]}, {series.name}: {said(v)}"
        )
        for x, y, i, v in points
    )
    return Markup('<polyline class="l{}" points="{}"/>').format(number, path) + dots


def _svg(axis: Axis, series: Sequence[Series], scale: _Scale, said: Text, drawn: Sequence[Markup]) -> Markup:
    grid = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
               '<text class="tick" x="{}" y="{t:.1f}" text-anchor="end">{}</text>').format(
            _LEFT, WIDTH - _RIGHT, _LEFT - 5, said(tick), y=scale.y(tick), t=scale.y(tick) + 3.5
        )
        for tick in scale.ticks
    ]  # fmt: skip
    shown = sorted({0, (len(axis.places) - 1) // 2, len(axis.places) - 1}) if axis.places else []
    feet = [
        Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            _x(axis, i), HEIGHT - 6, axis.places[i]
        )
        for i in shown
    ]
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, _in_words(axis, series, said), Markup("").join([*grid, *feet, *drawn])
    )


def _in_words(axis: Axis, series: Sequence[Series], said: Text) -> str:
    """What the chart shows, for who cannot see it."""
    parts = []
    for s in series:
        known = [(p, v) for p, v in zip(axis.places, s.values, strict=True) if v is not None]
        if known:
            (first, a), (last, b) = known[0], known[-1]
            parts.append(f"{s.name}: {said(a)} at {axis.name} {first}, {said(b)} at {axis.name} {last}")
    return "; ".join(parts) or "nothing yet"


def swatch(number: int) -> Markup:
    """The colour of a series, for a legend."""
    return Markup('<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect class="b{}" width="10" '
                  'height="10" rx="2"/></svg>').format(number)  # fmt: skip


def progress(done: int, goal: int, working: int) -> Markup:
    """How far a round is: what has arrived, and what is still at work on."""
    most = max(goal, done + working, 1)
    return Markup(
        '<svg class="progress" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="track" width="100" height="6"/><rect class="b2" width="{:.2f}" height="6"/>'
        '<rect class="b1" width="{:.2f}" height="6"/></svg>'
    ).format(
        escape(f"{done} of {goal} updates, {working} devices at work"),
        100 * (done + working) / most,
        100 * done / most,
    )
