# SPDX-License-Identifier: Apache-2.0
"""One way of sending updates, tried on one task: accuracy round by round, and the bytes it took."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from edgefl.bundle import Bundle
from edgefl.cli.payload.tasks import TASKS, bundle
from edgefl.data import Examples
from edgefl.delta import STATELESS_MODES, Encoded, Residual, apply_feedback, encode
from edgefl.errors import NotFinite
from edgefl.options import CodingOptions
from edgefl.parameters import Arrays, Schema, Vector
from edgefl.runtime import Trainer
from edgefl.runtime.update import NMSE_PER_UPDATE
from edgefl.runtime.work import Coder
from edgefl.simulation import Plan, RoundRow, simulate
from edgefl.wire import Training

COHORT, MANY = 10, 100
"""Devices per round; devices there are where only some take part."""

SEEDS = (0, 1, 2)
EVERY, LAST = 5, 5
"""Accuracy is taken after every so many rounds, and after each of the last ones, whose mean is the result."""


@dataclass(frozen=True)
class Way:
    """A mode of the codec at a density.

    Attributes:
        noise: most noise of an unbiased update per device in its cohort, relative to its squared length.
    """

    mode: str
    density: float = 1.0
    noise: float = NMSE_PER_UPDATE

    @property
    def name(self) -> str:
        """As people read it: `unbiased 0.3 %`."""
        noise = f", noise {self.noise:g}" if self.noise != NMSE_PER_UPDATE else ""
        return self.mode if self.density == 1 else f"{self.mode} {100 * self.density:g} %{noise}"


DENSE = Way("float32")
HEADLINE = (
    DENSE,
    Way("unbiased", 0.01),
    Way("unbiased", 0.003),
    Way("unbiased", 0.001),
)
OTHERS = (
    Way("unbiased", 0.001, noise=7),
    Way("unbiased", 0.001, noise=10),
    Way("topk", 0.01),
    Way("dense8"),
    Way("ternary", 0.01),
    Way("subset", 0.1),
    Way("topk", 0.001),
    Way("dense4"),
)
LARGER = (DENSE, Way("unbiased", 0.003), Way("unbiased", 0.002), Way("unbiased", 0.001))
"""Also tried with twice the cohort, which bears twice the noise from each device."""

WAYS = (*HEADLINE, *OTHERS)

# What wins on whole vectors; the others only take time here. Dense float32 is the line to match, four bytes
# for every parameter.
_CODERS: Mapping[str, Sequence[str]] = {"float32": (), "dense8": ("zstd",), "dense4": ("zstd",)}


@dataclass(frozen=True)
class Run:
    """One federation.

    Attributes:
        task: a name of `TASKS`.
        way: how updates are sent.
        skewed: whether devices have different data (non-IID).
        everyone: whether all devices take part in every round, or some of 100.
        seed: of initial values, division of the data, draws and batches.
        rounds: how many.
        cohort: devices per round.
    """

    task: str
    way: Way
    skewed: bool
    everyone: bool
    seed: int
    rounds: int
    cohort: int = COHORT

    @property
    def key(self) -> str:
        """Tells runs apart."""
        where = f"{'skewed' if self.skewed else 'iid'}-{'everyone' if self.everyone else 'some'}"
        many = "" if self.cohort == COHORT else f"-{self.cohort}"
        return f"{self.task}/{self.way.name}/{where}{many}/{self.seed}/{self.rounds}"


@dataclass(frozen=True)
class Curve:
    """What became of a run.

    Attributes:
        key: the run's.
        parameters: shared by the devices.
        accuracy: pairs of round and accuracy on the test examples, in 0 to 1.
        frame_bytes: mean length of a device's frame, round by round.
        diverged: training gave NaN or infinity; the curve ends there.
        seconds: it took.
    """

    key: str
    parameters: int
    accuracy: tuple[tuple[int, float], ...]
    frame_bytes: tuple[float, ...]
    diverged: bool
    seconds: float

    @property
    def final(self) -> float:
        """Mean accuracy over the last rounds; chance counts for nothing where training diverged."""
        return 0.0 if self.diverged else float(np.mean([a for _, a in self.accuracy[-LAST:]]))


def grid() -> list[Run]:
    """All runs, what matters most first: they take long, and what is finished can be told before the end."""
    first, rest = SEEDS[:1], SEEDS[1:]
    stages = [
        (HEADLINE, False, SEEDS, COHORT),
        (LARGER, False, first, 2 * COHORT),
        (OTHERS, False, first, COHORT),
        (HEADLINE, True, SEEDS, COHORT),
        (OTHERS, True, first, COHORT),
        (LARGER, False, rest, 2 * COHORT),
        (OTHERS, False, rest, COHORT),
        (OTHERS, True, rest, COHORT),
    ]
    return [
        Run(task, way, skewed, everyone, seed, TASKS[task].rounds, cohort)
        for ways, everyone, seeds, cohort in stages
        for seed, skewed, task, way in product(seeds, (True, False), TASKS, ways)
    ]


def quick_grid() -> list[Run]:
    """A minute's worth: one seed, different data, 10 of 100 devices, a quarter of the rounds."""
    ways = (DENSE, Way("unbiased", 0.01), Way("unbiased", 0.003), Way("topk", 0.01))
    return [
        Run(name, way, True, False, 0, task.rounds // 4) for (name, task), way in product(TASKS.items(), ways)
    ]


def execute(run: Run) -> Curve:
    """Train, with the engine, codec and aggregation of a real federation."""
    task, started = TASKS[run.task], time.perf_counter()
    made = bundle(task, run.seed)
    devices = task.devices(run.cohort if run.everyone else MANY, run.skewed, run.seed)
    fit = replace(task.training.fit, seed=1000 * run.seed)
    training = Training(fit, CodingOptions(mode=run.way.mode, density=run.way.density))
    # Versions go down exactly: what is compared is the way up.
    plan = Plan(rounds=run.rounds, training=training, cohort=run.cohort, seed=run.seed, downlink=0.0)
    watcher = _Watcher(made, task.test(), run.rounds)
    diverged = False
    try:
        simulate(made, devices, plan, code=coder(run.way), on_round=watcher)
    except NotFinite:
        diverged = True
    return Curve(
        run.key,
        made.schema().size,
        tuple(watcher.accuracy),
        tuple(watcher.bytes),
        diverged,
        round(time.perf_counter() - started, 1),
    )


def coder(way: Way) -> Coder:
    """How devices code: as their server would have it, with error feedback where a mode needs it."""

    def code(
        delta: Vector,
        coding: CodingOptions,
        *,
        seed: int,
        schema: Schema,
        base_version: int,
        device: str,
        cohort: int,
        residual: Residual | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> tuple[Encoded, Residual | None]:
        coded = partial(
            encode,
            schema_id=schema.id,
            base_version=base_version,
            mode=way.mode,
            density=way.density,
            coders=_CODERS.get(way.mode, ("deflate", "zstd")),
            rng=np.random.default_rng([seed, zlib.crc32(device.encode())]),
            subset_seed=seed,
            nmse_limit=way.noise * cohort if way.mode == "unbiased" else None,
        )
        if way.mode in STATELESS_MODES:
            return coded(delta), None
        return apply_feedback(delta, residual, coded, schema_id=schema.id, base_version=base_version)

    return code


class _Watcher:
    """Takes the accuracy of each round's model where it is wanted, and counts bytes."""

    def __init__(self, made: Bundle, test: Examples, rounds: int) -> None:
        self._trainer, self._test, self._rounds = Trainer(made), test, rounds
        self.accuracy: list[tuple[int, float]] = []
        self.bytes: list[float] = []

    def __call__(self, row: RoundRow, values: Arrays) -> None:
        self.bytes.append(round(row.frame_bytes / row.devices, 1))
        if row.round % EVERY == 0 or row.round > self._rounds - LAST:
            self._trainer.rebase(values)
            found = self._trainer.predict(self._test.x).argmax(axis=-1) == self._test.y
            self.accuracy.append((row.round, round(float(found.mean()), 5)))
