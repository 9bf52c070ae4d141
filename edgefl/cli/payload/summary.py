# SPDX-License-Identifier: Apache-2.0
"""From many curves to what they say: points lost and bytes saved, with the spread over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgefl.cli.payload.runs import COHORT, DENSE, MANY, Curve, Run, Way
from edgefl.cli.payload.sockets import Overhead

Pairs = tuple[tuple[int, float], ...]
GOALS = ((300, 0.5), (900, 1.0))
"""What the unbiased mode is meant to reach: so many times fewer bytes up, at most so many points lost."""


@dataclass(frozen=True)
class Setting:
    """Where runs are compared: everything but the way of sending and the seed."""

    task: str
    skewed: bool
    everyone: bool
    cohort: int = COHORT

    @property
    def name(self) -> str:
        """As people read it."""
        data = "different data" if self.skewed else "alike data"
        return f"{data}, {f'all {self.cohort}' if self.everyone else f'{self.cohort} of {MANY}'}"


@dataclass(frozen=True)
class Row:
    """One way of sending in one setting.

    Attributes:
        seeds: runs it is the mean of.
        accuracy, spread: mean and standard deviation over seeds, in points.
        lost: points below dense float32 of the same seed, mean over seeds; negative where it is above.
        lost_spread: standard deviation of that over seeds.
        bytes_up: per device and round at the socket: the frame and what HTTP adds.
        times_fewer: dense float32, four bytes per parameter and nothing else, over that.
        diverged: runs that ended in NaN or infinity.
        curves: pairs of round and accuracy, 0 to 1, by seed; without those that diverged.
    """

    setting: Setting
    way: Way
    seeds: int
    accuracy: float
    spread: float
    lost: float
    lost_spread: float
    bytes_up: float
    times_fewer: float
    diverged: int
    curves: Mapping[int, Pairs]

    def curve(self, seeds: Iterable[int] | None = None) -> list[tuple[int, float]]:
        """Rounds with the mean accuracy of some seeds, or all, in points."""
        chosen = [dict(self.curves[s]) for s in (self.curves if seeds is None else seeds) if s in self.curves]
        rounds = sorted(set.intersection(*(set(c) for c in chosen))) if chosen else []
        return [(number, 100 * float(np.mean([c[number] for c in chosen]))) for number in rounds]


@dataclass(frozen=True)
class Verdict:
    """Whether a goal was reached in a setting, by which way at best, or which came closest."""

    setting: Setting
    times: int
    points: float
    way: str
    times_fewer: float
    lost: float
    reached: bool


def rows(done: Iterable[tuple[Run, Curve]], overheads: Mapping[str, Overhead]) -> list[Row]:
    """One row per setting and way, in the order of the runs."""
    by_way: dict[tuple[Setting, Way], dict[int, Curve]] = defaultdict(dict)
    for run, curve in done:
        by_way[Setting(run.task, run.skewed, run.everyone, run.cohort), run.way][run.seed] = curve
    made = []
    for (setting, way), curves in by_way.items():
        dense = by_way.get((setting, DENSE), {})
        # A seed counts once its line to match is there.
        pairs = {seed: (dense[seed], curve) for seed, curve in curves.items() if seed in dense}
        if pairs:
            made.append(_row(setting, way, pairs, _overhead(overheads, way.mode)))
    return made


def verdicts(found: Sequence[Row]) -> list[Verdict]:
    """For every setting and goal, the unbiased way that saves enough and loses least, or else saves most."""
    made = []
    for setting in dict.fromkeys(row.setting for row in found):
        mine = [row for row in found if row.setting == setting and row.way.mode == "unbiased"]
        for times, points in GOALS if mine else ():
            enough = [row for row in mine if row.times_fewer >= times]
            best = min(enough, key=lambda row: row.lost) if enough else max(mine, key=lambda r: r.times_fewer)
            reached = bool(enough) and best.lost <= points and not best.diverged
            lost = round(best.lost, 2)
            made.append(Verdict(setting, times, points, best.way.name, best.times_fewer, lost, reached))
    return made


def as_json(found: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON objects, numbers rounded to what they are worth."""
    return [
        {
            **asdict(row.setting),
            "way": row.way.name,
            "mode": row.way.mode,
            "density": row.way.density,
            "seeds": row.seeds,
            "accuracy": round(row.accuracy, 2),
            "spread": round(row.spread, 2),
            "lost": round(row.lost, 2),
            "lost_spread": round(row.lost_spread, 2),
            "bytes_up": round(row.bytes_up),
            "times_fewer": round(row.times_fewer, 1),
            "diverged": row.diverged,
            "curve": [[number, round(value, 2)] for number, value in row.curve()],
        }
        for row in found
    ]


def _row(setting: Setting, way: Way, pairs: Mapping[int, tuple[Curve, Curve]], overhead: float) -> Row:
    """A row of curves by seed, each with the dense one of its seed before it."""
    curves = [curve for _, curve in pairs.values()]
    finals = [100 * curve.final for curve in curves]
    losses = [100 * (dense.final - curve.final) for dense, curve in pairs.values()]
    bytes_up = float(np.mean([np.mean(c.frame_bytes) for c in curves if c.frame_bytes])) + overhead
    return Row(
        setting,
        way,
        len(curves),
        float(np.mean(finals)),
        float(np.std(finals)),
        float(np.mean(losses)),
        float(np.std(losses)),
        bytes_up,
        4 * curves[0].parameters / bytes_up,
        sum(curve.diverged for curve in curves),
        {seed: curve.accuracy for seed, (_, curve) in pairs.items() if not curve.diverged},
    )


def _overhead(overheads: Mapping[str, Overhead], mode: str) -> float:
    """Of the mode, or the largest measured where no server was asked for it."""
    found = overheads.get(mode)
    return found.up if found else max((o.up for o in overheads.values()), default=0.0)
