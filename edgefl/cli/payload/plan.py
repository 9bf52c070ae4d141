# SPDX-License-Identifier: Apache-2.0
"""What one update of a model costs to send, mode by mode, and what a month of rounds costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgefl.delta import Encoded, encode
from edgefl.delta.lattice import encode_moves
from edgefl.errors import DeltaOption
from edgefl.options import DOWNLINK
from edgefl.parameters import Schema, Vector
from edgefl.runtime.update import NMSE_PER_UPDATE
from edgefl.server_stub.publish import Standing, publish

HTTP_UP, HTTP_DOWN = 392, 810
"""Bytes that one round's requests and answers take beside frames and parameters; `--train` measures them."""

DENSITIES = (0.001, 0.003, 0.01, 0.03, 0.1)
WAYS: tuple[tuple[str, Sequence[float]], ...] = (
    ("unbiased", DENSITIES),
    ("topk", DENSITIES),
    ("ternary", (0.001, 0.01)),
    ("subset", (0.1,)),
    ("dense4", (1.0,)),
    ("dense8", (1.0,)),
    ("float16", (1.0,)),
    ("float32", (1.0,)),
)
CHOOSING = ("unbiased", "topk", "ternary", "subset")
"""Modes that leave parameters out, and can therefore be fitted to a budget."""


@dataclass(frozen=True)
class Assumptions:
    """What a month is.

    Attributes:
        rounds: a device takes part in per month.
        cohort: updates per round.
        plan: bytes of the phone's data plan.
    """

    rounds: int
    cohort: int
    plan: int


@dataclass(frozen=True)
class Row:
    """One way of sending an update up.

    Attributes:
        mode, density: for `edgefl serve`.
        values: carried.
        bytes: of the frame.
        times_smaller: dense float32 over the frame.
        bits_per_value: bits of the frame over values carried.
        bytes_up: per round, with HTTP.
        month_up: per month.
        plan_share: part of the data plan that a month takes.
        noise: squared error over squared length that one update carries, None where the mode forgets nothing
            or remembers what it left out.
        cohort: updates a round needs so that their mean is sound, None where any number will do.
    """

    mode: str
    density: float
    values: int
    bytes: int
    times_smaller: float
    bits_per_value: float
    bytes_up: int
    month_up: int
    plan_share: float
    noise: float | None
    cohort: int | None

    @property
    def name(self) -> str:
        """As people read it: `unbiased 0.3 %`."""
        return self.mode if self.density == 1 else f"{self.mode} {100 * self.density:.3g} %"


@dataclass(frozen=True)
class DownRow:
    """One way down: what, bytes with HTTP, times smaller than float32, and bytes per month."""

    what: str
    bytes: int
    times_smaller: float
    month: int
    plan_share: float


def up_rows(vector: Vector, schema: Schema, version: int, month: Assumptions) -> list[Row]:
    """Every mode at every density that makes sense for it."""
    coded = partial(encode, vector, schema_id=schema.id, base_version=version, rng=0)
    return [
        _row(mode, density, coded(mode=mode, density=density), month)
        for mode, densities in WAYS
        for density in densities
    ]


def fitting_rows(vector: Vector, schema: Schema, version: int, month: Assumptions, budget: int) -> list[Row]:
    """The densest frame of every mode that fits a number of bytes.

    Raises:
        DeltaOption: nothing fits.
    """
    rows = list(_fitting(vector, schema, version, month, budget))
    if not rows:
        raise DeltaOption(f"no mode makes an update of this model in {budget} bytes")
    return rows


def down_rows(vector: Vector, start: Vector, schema: Schema, month: Assumptions) -> list[DownRow]:
    """What devices fetch: the step since the round before, as the server publishes it, or a whole model.

    The step is the mean of a cohort's updates; one update stands for all of them here.
    """
    step, _ = publish(Standing.first(start), vector.astype(np.float64), DOWNLINK)
    frame = encode_moves(step.moves, step.unit, schema_id=schema.id, base_version=0)
    sizes = {"step since the round before": len(frame), "whole model, float32": 4 * schema.size}
    return [
        DownRow(what, size + HTTP_DOWN, 4 * schema.size / size, *_month(size + HTTP_DOWN, month))
        for what, size in sizes.items()
    ]


def advised(rows: Sequence[Row], cohort: int) -> Row:
    """The smallest unbiased update whose noise a cohort averages out, else the largest changes at 1 %."""
    sound = [r for r in rows if r.mode == "unbiased" and r.cohort is not None and r.cohort <= cohort]
    largest = [r for r in rows if r.mode == "topk" and r.density == 0.01]
    return min([*sound, *(largest if not sound else [])] or list(rows), key=lambda row: row.bytes)


def _fitting(vector: Vector, schema: Schema, version: int, month: Assumptions, budget: int) -> Iterator[Row]:
    for mode in CHOOSING:
        try:
            made = encode(
                vector, schema_id=schema.id, base_version=version, rng=0, mode=mode, payload_bytes=budget
            )
        except DeltaOption:
            continue
        # The budget decides the expected number of values; drawn at random, it is met closely.
        yield _row(mode, float(f"{len(made.indices) / max(vector.size, 1):.3g}"), made, month)


def _row(mode: str, density: float, made: Encoded, month: Assumptions) -> Row:
    size, values = len(made.frame), max(len(made.indices), 1)
    up = size + HTTP_UP
    cohort = None if made.nmse is None else max(1, int(np.ceil(made.nmse / NMSE_PER_UPDATE)))
    return Row(
        mode,
        density,
        len(made.indices),
        size,
        4 * made.size / size,
        8 * size / values,
        up,
        *_month(up, month),
        made.nmse,
        cohort,
    )


def _month(size: int, month: Assumptions) -> tuple[int, float]:
    total = size * month.rounds
    return total, total / month.plan
