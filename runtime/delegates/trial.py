# SPDX-License-Identifier: Apache-2.0
"""One engine or delegate on one graph: loaded, compared with the bundle's proof, timed.

Runs in the process that calls it, which a bad delegate can take down; `isolated` gives it one of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgefl.bundle import Bundle
from edgefl.errors import BackendError, BackendFailure, BackendUnavailable
from edgefl.proof import golden_feeds, sketched, stored_sketch
from edgefl.runtime.backends.base import Backend, Program
from edgefl.runtime.delegates.choice import CPU, Choice, Placement, State, Verdict
from edgefl.sketch import Difference, Sketch, difference, tolerance_for

Array = npt.NDArray[Any]
Stage = Callable[[str], None]


class Engine(Backend, Protocol):
    """A backend that runs graphs as a `Choice` says and tells where their operators went."""

    def check(self) -> None:
        """Raise BackendError where what was chosen does not load."""
        ...

    def placed(self, bundle: Bundle, kind: str, feeds: Mapping[str, Array], program: Program) -> Placement:
        """Which operators of a loaded graph run where."""
        ...


MARGIN = 0.95
"""A delegate is faster where it takes at most this part of the CPU's time."""

_MOST_ERROR = 1e30
_BUDGET_S = 0.25
_MOST_RUNS = 20


@dataclass(frozen=True)
class Truth:
    """What a graph is tried with, and what must come of it.

    Attributes:
        kind: the graph's.
        feeds: by contract name.
        rows: of the outputs that NumPy makes of them.
    """

    kind: str
    feeds: Mapping[str, Array]
    rows: Sketch

    @staticmethod
    def of(bundle: Bundle, target: str, kind: str) -> Truth:
        """From the bundle's proof; where it has none, from its ONNX graph.

        Raises:
            BackendUnavailable: there is neither, so no engine can be proved.
        """
        rows = stored_sketch(bundle, target, kind)
        if rows is None and not kind.endswith("-int8"):
            bundle = sketched(bundle)
            rows = stored_sketch(bundle, target, kind)
        if rows is None:
            raise BackendUnavailable(
                f"bundle {bundle.manifest.name!r} does not say what {kind} must give on its golden batch, so "
                "no engine can be proved right; convert the model again"
            )
        return Truth(kind, golden_feeds(bundle, kind), rows)

    def run(self, program: Program) -> tuple[Mapping[str, Array], dict[str, Array]]:
        """What the program took, and copies of what it made.

        An int8 model for deployment takes one example, or the batch where it could not be made for one.
        """
        if self.kind == "infer-int8":
            one = {name: value[:1] for name, value in self.feeds.items()}
            with contextlib.suppress(BackendFailure):
                return one, _copies(program(one))
        return self.feeds, _copies(program(self.feeds))

    def difference(self, made: Mapping[str, Array], dtype: str = "float32") -> Difference:
        """The worst difference of what an engine of such arithmetic made."""
        return difference(self.rows, made, tolerance_for(self.kind, dtype))


def try_engine(bundle: Bundle, kind: str, target: str, program: Program, name: str = CPU) -> Verdict:
    """Whether a loaded program gives a graph's results, the first time and again.

    Args:
        name: what it runs on, in float32.
    """
    truth = Truth.of(bundle, target, kind)
    found = max((truth.difference(truth.run(program)[1]) for _ in range(2)), key=lambda one: one.excess)
    verdict = Verdict(name, kind, "right", "", error=min(found.excess, _MOST_ERROR))
    return verdict if found.excess <= 1 else replace(verdict, state="wrong", reason=str(found))


def try_choice(
    bundle: Bundle, kind: str, choice: Choice, threads: int, stage: Stage = lambda name: None
) -> Verdict:
    """What comes of running an artifact as chosen: right or wrong by the bundle's proof, fast or slow beside
    the engine's own CPU code.

    Args:
        stage: told what comes next, so that a watcher knows where a process was lost.

    Raises:
        BackendUnavailable: the engine is not installed, or the bundle does not say what is right.
    """
    truth = Truth.of(bundle, choice.engine, kind)
    stage("reference")
    verdict = Verdict(choice.name, kind, "right", "", cpu_ms=_own_ms(bundle, truth, choice.engine, threads))
    try:
        stage("load")
        engine = open_choice(choice, threads)
        program = engine.load(bundle, kind)
        stage("run")
        feeds, first = truth.run(program)
        ms = _time(program, feeds)
        last = _copies(program(feeds))
    except BackendError as exc:
        return replace(verdict, state="refused", reason=str(exc))
    found = max((truth.difference(made, choice.dtype) for made in (first, last)), key=lambda d: d.excess)
    place = engine.placed(bundle, kind, feeds, program)
    verdict = replace(
        verdict,
        error=min(found.excess, _MOST_ERROR),
        ms=ms,
        operators=place.operators,
        taken=place.taken,
        partitions=place.partitions,
    )
    return _judged(verdict, found)


def open_choice(choice: Choice, threads: int) -> Engine:
    """The engine, told to run graphs as chosen; raises BackendUnavailable where it is not installed."""
    if choice.engine == "onnx":
        from edgefl.runtime.backends.onnx import OnnxBackend

        return OnnxBackend(threads, choice)
    from edgefl.runtime.backends.tflite import TfliteBackend

    return TfliteBackend(threads, choice)


def _own_ms(bundle: Bundle, truth: Truth, name: str, threads: int) -> float:
    """Milliseconds of the engine's own code; 0 where it does not run the graph or gets it wrong."""
    cpu = open_choice(Choice(name), threads)
    try:
        program = cpu.load(bundle, truth.kind)
        feeds, made = truth.run(program)
        return _time(program, feeds) if truth.difference(made).excess <= 1 else 0.0
    except BackendFailure:
        return 0.0


def _copies(made: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(value) for name, value in made.items()}


def _time(program: Program, feeds: Mapping[str, Array]) -> float:
    """Milliseconds of the fastest run within a small budget: the one least disturbed by others."""
    program(feeds)
    times: list[float] = []
    while not times or (sum(times) < _BUDGET_S and len(times) < _MOST_RUNS):
        begin = time.perf_counter()
        program(feeds)
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def _judged(verdict: Verdict, found: Difference) -> Verdict:
    if verdict.taken == 0:
        return replace(verdict, state="idle", reason=f"takes none of the {verdict.operators} operators")
    if not found.excess <= 1:
        return replace(verdict, state="wrong", reason=str(found))
    if not verdict.cpu_ms:
        return replace(verdict, reason=f"{verdict.ms:.3g} ms, and the CPU's kernels are no choice")
    state: State = "right" if verdict.ms <= MARGIN * verdict.cpu_ms else "slower"
    return replace(verdict, state=state, reason=f"{verdict.ms:.3g} ms, the CPU {verdict.cpu_ms:.3g} ms")
